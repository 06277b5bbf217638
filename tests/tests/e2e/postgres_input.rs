//! What comes to a PostgreSQL listener and is none of its business.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use enforcer_tests::{Scene, client::Client, daemon::Daemon};
use serde_json::Value;

fn scene(label: &str) -> Scene {
    let mut scene = Scene::new(label).expect("a scene");
    let login = scene.login("app").expect("a login");
    let _server = scene.serve_postgres("token", Some(login)).expect("a server");
    scene
}
