use clap::Parser;

use super::*;
use crate::cli::{Cli, Command, policy::PolicyCommand};

const CONFIG: &str = r#"
[listeners.public]
address = "0.0.0.0:8443"
tls = { certificate = "cert.pem", private_key = "key.pem" }

[listeners.cache]
address = "0.0.0.0:6380"
protocol = "tcp"
tls = { certificate = "cert.pem", private_key = "key.pem", client_ca = "ca.pem" }

[[identity.jwt]]
issuer = "https://idp.example"
audience = "api"
secret_file = "secret"
algorithms = ["HS256"]

[policies.base]
max_session = "8h"
idle_timeout = "15m"

[policies.contractors]
template = "pci-dss"
max_session = "4h"
match = { groups = "contractors" }
hours = { time_zone = "Europe/Berlin", windows = ["mon-fri 08:00-18:00"] }

[policies.admin]
max_session = "4h"
idle_timeout = "5m"
require = { scopes = "admin" }

[[routes]]
listener = "public"
upstream = "http://127.0.0.1:9000"
policy = "base"

[[routes]]
listener = "public"
host = "api.example.com"
path = "/admin"
upstream = "http://127.0.0.1:9000"
policies = ["base", "admin"]

[[routes]]
listener = "cache"
upstream = "tcp://127.0.0.1:6379"
policy = "base"
"#;

fn arguments(line: &str) -> ExplainArgs {
    let line = format!("enforcer policy explain --config f.toml --subject alice {line}");
    let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
    match cli.command {
        Command::Policy(policy) => match policy.command {
            PolicyCommand::Explain(args) => args,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn explained(line: &str, claims: Option<Value>) -> Result<ExplanationView> {
    let config = Config::parse(CONFIG, Path::new("/f.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut args = arguments(line);
    if let Some(claims) = claims {
        let path = folder.path().join("claims.json");
        fs::write(&path, claims.to_string()).unwrap();
        args.claims = Some(path);
    }
    let now = args.at.unwrap().0;
    explain(&config, &args, now)
}

const OFFICE_HOURS: &str = "--at 2026-01-05T09:00:00Z";

#[test]
fn each_limit_names_the_policies_that_it_comes_from() {
    let claims = serde_json::json!({"groups": ["contractors"], "scope": "admin"});
    let line = format!("--route api.example.com/admin/x {OFFICE_HOURS}");
    let view = explained(&line, Some(claims)).unwrap();
    assert!(view.allowed, "{view:?}");
    assert_eq!(view.route.path, "/admin");
    let limit = |name: &str| {
        let limit = view.limits.iter().find(|it| it.limit == name).unwrap();
        (limit.value.clone(), limit.policies.join(" "))
    };
    assert_eq!(
        limit("max_session"),
        ("4h".into(), "admin contractors".into())
    );
    assert_eq!(limit("idle_timeout"), ("5m".into(), "admin".into()));
    let end = "until 2026-01-05T17:00:00.000000Z";
    assert_eq!(limit("hours"), (end.into(), "contractors".into()));
    let text = for_people(&view);
    assert!(text.contains("decision: allowed"), "{text}");
    assert!(
        text.contains("contractors  yes      `groups` is `contractors`"),
        "{text}"
    );
}

#[test]
fn a_refusal_is_said_with_its_code() {
    let view = explained(
        &format!("--route api.example.com/admin {OFFICE_HOURS}"),
        None,
    )
    .unwrap();
    assert!(!view.allowed);
    let text = for_people(&view);
    let line =
        "decision: refused: insufficient_scope, the policy `admin` asks for the scope `admin`";
    assert!(text.contains(line), "{text}");
    let line = "the route does not name it, and the claim `groups` is not `contractors`";
    assert!(text.contains(line), "{text}");
    let claims = serde_json::json!({"groups": "contractors"});
    let night = explained("--route / --at 2026-01-05T22:00:00Z", Some(claims)).unwrap();
    assert_eq!(night.refusal.unwrap().code, "outside_hours");
}

#[test]
fn routes_are_found_as_requests_find_them() {
    let route = |line: &str| {
        explained(&format!("--route {line} {OFFICE_HOURS}"), None)
            .map(|view| (view.route.listener, view.route.path))
            .map_err(|error| error.to_string())
    };
    let public = |path: &str| Ok(("public".to_owned(), path.to_owned()));
    assert_eq!(route("/admin"), public("/"));
    assert_eq!(route("API.example.com/%61dmin"), public("/admin"));
    assert_eq!(route("public"), public("/"));
    assert_eq!(route("cache"), Ok(("cache".to_owned(), "/".to_owned())));
    assert!(
        route("nowhere")
            .unwrap_err()
            .contains("neither a path nor a listener")
    );
    assert!(
        route("/x --listener nowhere")
            .unwrap_err()
            .contains("no listener `nowhere`")
    );
    assert!(route("/../x").is_err());
}
