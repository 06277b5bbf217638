//! A state folder that can't be written: no start without one, but what runs goes on.

use std::{fs::File, io::Write as _, time::Duration};

use enforcer_tests::{Scene, Streams, wait};

const SIZE: usize = 1 << 20;

#[test]
fn with_a_full_state_folder_sessions_are_served_and_cut_and_nothing_is_forgotten() {
    let scene = Scene::new("full").unwrap();
    let state = scene.bed.mount_tmpfs("state", SIZE, "mode=700").unwrap();
    let daemon = scene.start().unwrap();
    let capture = scene.capture().unwrap();
    let mut filler = File::create(state.join("filler")).unwrap();
    for size in [4096, 1] {
        while filler.write_all(&vec![0; size]).is_ok() {}
    }

    let client = scene.client().unwrap();
    let deadline = wait::whole_second_after(Duration::from_secs(3));
    let streams = Streams::start(&client, &scene.token_until("alice", deadline).unwrap()).unwrap();
    for number in 0..20 {
        let token = scene.token(&format!("user {number}")).unwrap();
        assert_eq!(client.get("/headers", &token).unwrap().status, 200);
    }
    let ended = streams.end().unwrap();
    ended
        .check_cut(&capture.finish().unwrap(), deadline)
        .unwrap();

    let status = daemon.cli(&["status"]).unwrap();
    assert_eq!(status.code, 1, "{status:?}");
    for problem in [
        "the audit log cannot be written",
        "enforcer.db cannot be written",
    ] {
        assert!(status.stdout.contains(problem), "{status:?}");
    }
    drop(filler);
    std::fs::remove_file(state.join("filler")).unwrap();
    // With the command, which reads past the line that the full disk broke off.
    wait::until("no session was missing in the audit log", || {
        let opened = ["audit", "--event", "session_opened", "--json"];
        let opened = daemon.cli(&opened).ok()?.stdout;
        let has = |subject: String| opened.contains(&format!("\"subject\":\"{subject}\""));
        (0..20)
            .all(|number| has(format!("user {number}")))
            .then_some(())
    })
    .unwrap();
    wait::until("status found nothing wrong", || {
        (daemon.cli(&["status"]).ok()?.code == 0).then_some(())
    })
    .unwrap();
}

#[test]
fn a_read_only_state_folder_is_refused_before_anything_starts() {
    let scene = Scene::new("read-only").unwrap();
    scene.bed.mount_tmpfs("state", SIZE, "ro").unwrap();
    let refused = format!("{:#}", scene.start().unwrap_err());
    let state = scene.bed.path("state").display().to_string();
    assert!(refused.contains(&state), "{refused}");
    assert!(refused.contains("Read-only file system"), "{refused}");
    assert!(!scene.bed.bpf_dir().exists());
}
