//! Upstreams that fail, and clients that leave.

use enforcer_tests::{Scene, client::End, upstream::Upload, wait};

#[test]
fn an_upstream_that_is_down_is_a_502() {
    let mut scene = Scene::new("down").unwrap();
    scene.config.routes[0].upstream = "http://127.0.0.1:1".to_owned();
    let _daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let answer = scene.client().unwrap().get("/headers", &token).unwrap();
    assert_eq!(answer.status, 502);
    assert_eq!(answer.json().unwrap()["code"], "upstream_unreachable");
}

#[test]
fn an_upstream_that_does_not_answer_is_a_504() {
    let mut scene = Scene::new("slow").unwrap();
    scene.config.routes[0].response_timeout = Some("500ms".to_owned());
    let _daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let connection = scene.client().unwrap().connection().unwrap();
    let answer = connection.get("/slow", &token).unwrap();
    assert_eq!(answer.status, 504);
    assert_eq!(answer.json().unwrap()["code"], "upstream_timeout");
    // The client's connection is as good as before.
    assert_eq!(connection.get("/headers", &token).unwrap().status, 200);
}

#[test]
fn an_upstream_that_closes_without_an_answer_is_a_502() {
    let scene = Scene::new("hang-up").unwrap();
    let _daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let answer = scene.client().unwrap().get("/hang-up", &token).unwrap();
    assert_eq!(answer.status, 502);
    assert_eq!(answer.json().unwrap()["code"], "upstream_closed");
}

#[test]
fn an_answer_that_breaks_off_is_not_passed_for_a_whole_one() {
    let scene = Scene::new("break-off").unwrap();
    let _daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let download = scene
        .client()
        .unwrap()
        .download("/break-off", &token)
        .unwrap();
    let received = wait::until("the beginning came", || {
        (download.received() == 1000).then_some(())
    });
    received.unwrap();
    let ending = download.end().unwrap();
    assert!(
        matches!(ending.how, End::Reset | End::Truncated),
        "{ending:?}"
    );
}

#[test]
fn a_client_that_leaves_an_upload_leaves_no_whole_one_behind() {
    let scene = Scene::new("leave-upload").unwrap();
    let _daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    for framing in [
        "Content-Length: 1000000\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n3e8\r\n",
    ] {
        let raw = scene.client().unwrap().tls().unwrap();
        raw.write(format!(
            "POST /upload HTTP/1.1\r\nHost: enforcer.test\r\nAuthorization: Bearer {token}\r\n{framing}"
        ))
        .unwrap();
        raw.write([b'u'; 1000]).unwrap();
        let uploads = scene.upstream.log().uploads().len();
        let began = |upload: &Upload| upload.bytes == 1000 && upload.complete.is_none();
        scene
            .upstream
            .wait_for_upload("the upload began", began)
            .unwrap();
        drop(raw);
        wait::until("the upload ended", || {
            scene.upstream.log().uploads().last()?.complete
        })
        .unwrap();
        assert!(scene.upstream.log().uploads().len() >= uploads);
    }
    let uploads = scene.upstream.log().uploads();
    let broken_off = Upload {
        bytes: 1000,
        complete: Some(false),
    };
    assert_eq!(uploads, [broken_off; 2]);
}

#[test]
fn a_client_that_leaves_a_download_or_a_websocket_frees_the_upstream() {
    let scene = Scene::new("leave").unwrap();
    let _daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let client = scene.client().unwrap();
    let download = client.download("/download?rate=100000", &token).unwrap();
    let socket = client.websocket("/ticks", &token).unwrap();
    socket.receive().unwrap();
    let open = |closed: usize| {
        let what = format!("{closed} upstream connections had closed");
        scene
            .upstream
            .log()
            .wait_for_connections(&what, |connections| {
                connections
                    .iter()
                    .filter(|connection| connection.closed)
                    .count()
                    == closed
            })
    };
    assert_eq!(open(0).unwrap().len(), 2);
    download.leave();
    open(1).unwrap();
    drop(socket);
    open(2).unwrap();
}

#[test]
fn bodies_pass_whole_in_both_directions() {
    const LENGTH: usize = 50_000_000;
    let scene = Scene::new("bodies").unwrap();
    let _daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let client = scene.client().unwrap();
    let path = format!("/download?length={LENGTH}");
    let answer = client.get(&path, &token).unwrap();
    assert_eq!(answer.body.len(), LENGTH);
    let connection = client.connection().unwrap();
    let answer = connection
        .post("/upload", &token, vec![b'u'; LENGTH])
        .unwrap();
    assert_eq!(answer.body, LENGTH.to_string());
    assert_eq!(scene.upstream.log().uploads()[0].complete, Some(true));
}

#[test]
fn the_gateway_needs_no_more_memory_for_a_body_than_for_a_piece_of_it() {
    let scene = Scene::new("memory").unwrap();
    let daemon = scene.start().unwrap();
    let token = scene.token("alice").unwrap();
    let client = scene.client().unwrap();
    // The upstream sends as fast as it can; this client doesn't read.
    let hoarder = client.tls().unwrap();
    hoarder
        .write(format!(
            "GET /download HTTP/1.1\r\nHost: enforcer.test\r\nAuthorization: Bearer {token}\r\n\r\n"
        ))
        .unwrap();
    let before = daemon.gateway_memory().unwrap();
    assert_eq!(
        client
            .get("/download?length=200000000", &token)
            .unwrap()
            .body
            .len(),
        200_000_000
    );
    let grown = daemon.gateway_memory().unwrap().saturating_sub(before);
    assert!(grown < 32 * 1024, "the gateway grew by {grown} KiB");
}
