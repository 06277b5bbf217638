mod audit;
mod certificates;
mod cookies;
mod faults;
mod files;
mod identity;
mod monitoring;
mod policies;
mod postgres;
mod proxy;
mod tcp;
mod tunnels;

use super::*;
use crate::policy::{ActivityKind, Limits, Mode, Policy};

const GOOD: &str = r#"[daemon]
state_dir = "state"
max_sessions = 100

[listeners.public]
address = "0.0.0.0:8443"
protocol = "http"
tls = { certificate = "cert.pem", private_key = "key.pem", client_ca = "ca.pem" }

[[identity.jwt]]
issuer = "https://idp.example"
audience = "api"
secret_file = "secret"
algorithms = ["HS256"]

[policies.sensitive]
max_session = "15m"
idle_timeout = "5m"
activity = "payload"
mode = "observe"

[[routes]]
listener = "public"
host = "API.example.com."
path = "/admin/"
upstream = "https://127.0.0.1"
upstream_tls = { ca = "ca.pem", server_name = "backend" }
policy = "sensitive"
upstream_pool = "session"

[[routes]]
listener = "public"
upstream = "http://127.0.0.1:9000"
policy = "sensitive"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/enforcer/config.toml"))
}

fn problems(error: ConfigError) -> Vec<Problem> {
    match error {
        ConfigError::Invalid { problems, .. } => problems,
        ConfigError::Unreadable { .. } => panic!("{error}"),
    }
}

#[test]
fn a_good_file_becomes_a_configuration() {
    let config = parse(GOOD).unwrap();
    let folder = Path::new("/etc/enforcer");
    let expected = Daemon {
        state_dir: folder.join("state"),
        max_sessions: 100,
        ..Daemon::default()
    };
    assert_eq!(config.daemon, expected);
    let listener = &config.listeners["public"];
    assert_eq!(listener.address, "0.0.0.0:8443".parse().unwrap());
    assert_eq!(listener.tls.certificate, folder.join("cert.pem"));
    let issuer = &config.identity.jwt[0];
    assert_eq!(issuer.audience, ["api"]);
    assert_eq!(issuer.keys, KeySource::SecretFile(folder.join("secret")));
    assert_eq!(issuer.leeway, Duration::from_secs(30));
    let limits = Limits {
        max_session: Duration::from_secs(900),
        idle_timeout: Some(Duration::from_secs(300)),
        warn_before: Duration::from_secs(60),
        farewell: Duration::from_millis(250),
        activity: ActivityKind::Payload,
        mode: Mode::Observe,
        max_connections: None,
        sessions_per_subject: None,
        bind_network: None,
    };
    assert_eq!(config.policies["sensitive"].limits, limits);
    let [admin, rest] = &config.routes[..] else {
        panic!("{:?}", config.routes);
    };
    assert_eq!(admin.host.as_deref(), Some("api.example.com"));
    assert_eq!(admin.path, "/admin");
    assert_eq!(admin.upstream.port, 443);
    let tls = admin.upstream.tls.as_ref().unwrap();
    assert_eq!(tls.server_name.as_deref(), Some("backend"));
    assert_eq!(admin.upstream_pool, UpstreamPool::Session);
    assert_eq!((rest.host.as_deref(), rest.path.as_str()), (None, "/"));
    assert_eq!(rest.upstream.tls, None);
    assert_eq!(rest.connect_timeout, Duration::from_secs(5));
}

#[test]
fn short_sessions_are_announced_in_their_last_fifth() {
    let text = GOOD
        .replace("15m", "500ms")
        .replace("idle_timeout = \"5m\"\n", "");
    let limits = &parse(&text).unwrap().policies["sensitive"].limits;
    assert_eq!(limits.warn_before, Duration::from_millis(100));
    assert_eq!(limits.farewell, Duration::from_millis(100));
}

#[test]
fn an_empty_file_lacks_everything_at_once() {
    let problems = problems(parse("").unwrap_err());
    let what: Vec<_> = problems
        .iter()
        .map(|problem| problem.what.as_str())
        .collect();
    for lacking in ["listener", "issuer", "policy", "route"] {
        assert!(what.iter().any(|what| what.contains(lacking)), "{what:?}");
    }
}

#[test]
fn problems_print_with_file_and_line_and_what_to_write_instead() {
    let text = GOOD
        .replace("15m", "-1s")
        .replace("mode = \"observe\"", "mode = \"off\"");
    assert_eq!(
        parse(&text).unwrap_err().to_string(),
        "/etc/enforcer/config.toml:17: `max_session` is negative: `-1s`\n\
         help: write a duration such as `max_session = \"15m\"`\n\
         /etc/enforcer/config.toml:20: `mode` cannot be `off`\n\
         help: write one of `enforce`, `observe`"
    );
    let missing = Config::load(Path::new("/nowhere/config.toml")).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "/nowhere/config.toml: cannot be read\nhelp: create the file, or correct the path"
    );
}

proptest::proptest! {
    #[test]
    fn arbitrary_text_never_panics(text: String) {
        proptest::prop_assert!(parse(&text).is_err());
    }

    #[test]
    fn a_damaged_file_never_panics(at in 0..GOOD.len(), damage in "[\\[\\]{}=\"'\n#.a0-]{0,3}") {
        let mut text = GOOD.to_owned();
        text.replace_range(at..=at, &damage);
        if let Err(error) = parse(&text) {
            for problem in problems(error) {
                proptest::prop_assert!((1..=GOOD.lines().count() + 4).contains(&problem.line));
            }
        }
    }
}
