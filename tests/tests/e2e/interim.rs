//! Interim responses between a server and clients of other makes.

use enforcer_tests::{
    Scene,
    certificates::SERVER_NAME,
    config::{Route, UpstreamTls},
    interim::{self, Server},
    scene::PORT,
};

/// Longer than curl may wait for `100 Continue` and a test for curl.
const FOR_EVER: &str = "600";

fn scenes(label: &str) -> impl Iterator<Item = (Scene, Server)> {
    ["http", "h2c", "h2"].into_iter().map(move |scheme| {
        let mut scene = Scene::new(&format!("{label}-{scheme}")).expect("a scene");
        let (bed, authority) = (&scene.bed, &scene.authority);
        let server = match scheme {
            "h2" => Server::start_tls(bed, &authority.server().expect("an identity")),
            _ => Server::start(bed, scheme),
        };
        let server = server.expect("a server");
        let tls = (scheme == "h2").then(|| UpstreamTls::trusting(scene.ca_file()));
        scene.config.routes = vec![Route {
            upstream_tls: tls,
            ..Route::to(server.url())
        }];
        (scene, server)
    })
}

/// What curl got: each head and the body, without line ends, dates and the session.
fn curl(scene: &Scene, token: &str, arguments: &[&str]) -> Vec<String> {
    let client = scene.client().expect("a client");
    let bearer = format!("Authorization: Bearer {token}");
    let url = format!("https://{SERVER_NAME}:{PORT}/");
    let all = [
        &["--dump-header", "-", "--header", &bearer, &url],
        arguments,
    ]
    .concat();
    let cgroup = scene.bed.tools_cgroup().expect("a cgroup");
    let output = client.curl(&cgroup, &scene.ca_file(), &all).expect("curl");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let interesting = ["HTTP/", "link", "POST", "GET"];
    said.lines()
        .filter(|line| interesting.iter().any(|start| line.starts_with(start)))
        .map(|line| line.trim_end().to_owned())
        .collect()
}

#[test]
fn curl_gets_hints_over_both_versions() {
    let link = "link: </style.css>; rel=preload; as=style";
    for (scene, server) in scenes("hints") {
        let _daemon = scene.start().unwrap();
        let token = scene.token("alice").unwrap();
        let said = curl(&scene, &token, &["--http2"]);
        let expected = ["HTTP/2 103", link, "HTTP/2 102", "HTTP/2 200", "GET 0"];
        assert_eq!(said, expected, "{server:?}");
        let said = curl(&scene, &token, &["--http1.1"]);
        let hints = ["HTTP/1.1 103 Early Hints", link, "HTTP/1.1 102 Processing"];
        let rest = ["HTTP/1.1 200 OK", "GET 0"];
        assert_eq!(said, [&hints[..], &rest].concat(), "{server:?}");
    }
}

/// RFC 9110, section 10.1.1, over HTTP/2: who waits is asked, and who will be refused is not.
#[test]
fn clients_that_wait_are_asked_for_the_body() {
    for (scene, server) in scenes("asked") {
        let _daemon = scene.start().unwrap();
        let token = scene.token("alice").unwrap();
        let mut said = interim::upload(&scene, &token, "content").unwrap();
        // Between the others, the gateway's own.
        let asked = said.iter().position(|line| line == "100").unwrap();
        said.remove(asked);
        assert_eq!(said, ["103", "102", "200", "POST 7"], "{server:?}");
        let said = interim::upload(&scene, "no.such.token", "content").unwrap();
        assert_eq!(said[0], "401", "{said:?}");

        let expectation = [
            "--expect100-timeout",
            FOR_EVER,
            "--header",
            "Expect: 100-continue",
        ];
        for version in ["--http2", "--http1.1"] {
            let data = [&expectation[..], &[version, "--data", "content"]].concat();
            let said = curl(&scene, &token, &data);
            assert!(said.iter().any(|line| line.contains(" 100")), "{said:?}");
            assert_eq!(said.last().unwrap(), "POST 7", "{said:?}");
        }
    }
}
