//! `enforcer policy explain`.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

use super::ExplainArgs;
use crate::{
    cli::{
        output::{print, print_json},
        text::{printable, table},
    },
    clock::WallInstant,
    config::{Config, Protocol, Route},
    gateway,
    policy::{
        Because, Claims, Denied, Explanation, Limits, PolicyOutcome, PolicySet, Purpose, Request,
        Terms,
    },
    session::Principal,
};

/// An explanation as JSON.
#[derive(Debug, Serialize)]
struct ExplanationView {
    subject: String,
    issuer: String,
    client: Option<IpAddr>,
    at: String,
    route: RouteView,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<RefusalView>,
    /// What a policy that is only observed would have refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    observed: Option<RefusalView>,
    policies: Vec<PolicyView>,
    limits: Vec<LimitView>,
}

#[derive(Debug, Serialize)]
struct RouteView {
    listener: String,
    host: Option<String>,
    path: String,
}

#[derive(Debug, Serialize)]
struct RefusalView {
    code: &'static str,
    message: String,
}

#[derive(Debug, Serialize)]
struct PolicyView {
    name: String,
    applies: bool,
    because: String,
}

#[derive(Debug, Serialize)]
struct LimitView {
    limit: &'static str,
    value: String,
    /// The policies whose value it is.
    policies: Vec<String>,
}

pub(super) fn run(args: &ExplainArgs, now: WallInstant) -> Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let view = explain(&config, args, args.at.map_or(now, |at| at.0))?;
    if args.json {
        print_json(&view)?;
    } else {
        print(|out| writeln!(out, "{}", for_people(&view)))?;
    }
    Ok(if view.allowed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn explain(config: &Config, args: &ExplainArgs, now: WallInstant) -> Result<ExplanationView> {
    let claims = match &args.claims {
        Some(path) => read_claims(path)?,
        None => Claims::default(),
    };
    let principal = Principal {
        issuer: issuer(config, args, &claims)?,
        subject: args.subject.clone(),
    };
    let index = route(config, args)?;
    let place = config.routes.get(index).context("the route")?;
    let auth_time = claims.get("auth_time").and_then(Value::as_i64);
    let client = args.client.map(|client| client.to_canonical());
    let request = Request {
        purpose: Purpose::Route(index),
        principal: &principal,
        claims: &claims,
        authenticated_at: auth_time.map(WallInstant::from_unix_seconds),
        client: client.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        now,
    };
    let policies = PolicySet::new(&config.policies, &config.routes, &config.tunnels);
    let explanation = policies.explain(&request);
    Ok(ExplanationView {
        subject: args.subject.clone(),
        issuer: principal.issuer.clone(),
        client,
        at: now.to_string(),
        route: RouteView::from(place),
        allowed: explanation.decision.is_ok(),
        refusal: explanation.decision.as_ref().err().map(refusal),
        observed: match &explanation.decision {
            Ok(permit) => permit.observed.as_ref().map(refusal),
            Err(_) => None,
        },
        limits: limits(config, &explanation, now),
        policies: explanation.policies.iter().map(outcome).collect(),
    })
}

fn read_claims(path: &Path) -> Result<Claims> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let object = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not a JSON object of claims", path.display()))?;
    Ok(Claims::new(object))
}

fn issuer(config: &Config, args: &ExplainArgs, claims: &Claims) -> Result<String> {
    if let Some(issuer) = &args.issuer {
        return Ok(issuer.clone());
    }
    if let Some(issuer) = claims.get("iss").and_then(Value::as_str) {
        return Ok(issuer.to_owned());
    }
    let mut issuers = config.identity.issuers();
    match (issuers.next(), issuers.next()) {
        (Some(only), None) => Ok(only.to_owned()),
        _ => bail!("say who issued the credential with --issuer"),
    }
}

/// The route that a request would take.
fn route(config: &Config, args: &ExplainArgs) -> Result<usize> {
    let text = args.route.as_str();
    if let Some(listener) = config.listeners.get(text)
        && listener.protocol != Protocol::Http
    {
        let mut routes = config.routes.iter();
        let index = routes.position(|route| route.listener == text);
        return index.with_context(|| format!("no route starts at the listener `{text}`"));
    }
    let (listener, host, path) = if config.listeners.contains_key(text) {
        (Some(text), "", "/")
    } else {
        let start = text.find('/');
        let start = start.with_context(|| {
            format!("`{text}` is neither a path nor a listener: write `/` before a path")
        })?;
        (args.listener.as_deref(), &text[..start], &text[start..])
    };
    let listener = match listener {
        Some(name) if config.listeners.contains_key(name) => name,
        Some(name) => bail!("there is no listener `{name}`"),
        None => {
            let mut listeners = config.listeners.iter();
            let mut http = listeners
                .by_ref()
                .filter(|(_, it)| it.protocol == Protocol::Http);
            match (http.next(), http.next()) {
                (Some((only, _)), None) => only,
                _ => bail!("say which listener is meant with --listener"),
            }
        }
    };
    let host = host.to_ascii_lowercase();
    let found = gateway::route_of(&config.routes, listener, &host, path)?;
    found.with_context(|| format!("no route leads from `{listener}` to `{text}`"))
}

impl From<&Route> for RouteView {
    fn from(route: &Route) -> Self {
        Self {
            listener: route.listener.clone(),
            host: route.host.clone(),
            path: route.path.clone(),
        }
    }
}

fn refusal(denied: &Denied) -> RefusalView {
    RefusalView {
        code: denied.code(),
        message: denied.to_string(),
    }
}

fn outcome(outcome: &PolicyOutcome<'_>) -> PolicyView {
    let not_named = "the route does not name it";
    PolicyView {
        name: outcome.name.to_owned(),
        applies: outcome.applies(),
        because: match &outcome.because {
            Because::Route => "the route names it".to_owned(),
            Because::Matches(condition) => condition.to_string(),
            Because::Mismatch(mismatch) => format!("{not_named}, and {mismatch}"),
            Because::NotNamed => format!("{not_named}, and it has no `match`"),
        },
    }
}

fn shown(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

type Reading = (&'static str, fn(&Limits) -> Option<String>);

/// Each limit, as text.
const LIMITS: [Reading; 11] = [
    ("max_session", |limits| Some(shown(limits.max_session))),
    ("idle_timeout", |limits| limits.idle_timeout.map(shown)),
    ("warn_before", |limits| Some(shown(limits.warn_before))),
    ("farewell", |limits| Some(shown(limits.farewell))),
    ("activity", |limits| {
        Some(limits.activity.as_str().to_owned())
    }),
    ("mode", |limits| Some(limits.mode.as_str().to_owned())),
    ("max_connections", |limits| {
        limits.max_connections.map(|most| most.to_string())
    }),
    ("max_sessions_per_subject", |limits| {
        limits.sessions_per_subject.map(|it| it.max.to_string())
    }),
    ("at_session_limit", |limits| {
        let limit = limits.sessions_per_subject?;
        Some(limit.then.as_str().to_owned())
    }),
    ("bind_network", |limits| {
        limits.bind_network.map(|it| format!("/{}", it.ipv4))
    }),
    ("bind_network_ipv6", |limits| {
        limits.bind_network.map(|it| format!("/{}", it.ipv6))
    }),
];

fn limits(config: &Config, explanation: &Explanation<'_>, now: WallInstant) -> Vec<LimitView> {
    let applying = || explanation.policies.iter().filter(|it| it.applies());
    let names: Vec<_> = applying().map(|it| it.name.to_owned()).collect();
    let Some(terms) = Terms::of(&names, &config.policies, now) else {
        return Vec::new();
    };
    let mut limits: Vec<_> = LIMITS
        .iter()
        .filter_map(|(limit, read)| {
            let value = read(&terms.applied.limits)?;
            let giving = applying().filter(|it| read(&it.policy.limits).as_ref() == Some(&value));
            let policies = giving.map(|it| it.name.to_owned()).collect();
            Some(LimitView {
                limit,
                value,
                policies,
            })
        })
        .collect();
    let open = terms.hours_end_at.filter(|end| *end > now);
    if let Some(end) = open {
        let ending = applying().filter(|it| {
            let hours = it.policy.hours.as_ref();
            hours.and_then(|hours| hours.open_until(now)) == Some(end)
        });
        limits.push(LimitView {
            limit: "hours",
            value: format!("until {end}"),
            policies: ending.map(|it| it.name.to_owned()).collect(),
        });
    }
    limits
}

fn for_people(view: &ExplanationView) -> String {
    let client = view
        .client
        .map_or("an unknown address".to_owned(), |client| client.to_string());
    let route = &view.route;
    let host = route.host.as_deref().unwrap_or("any host");
    let mut text = format!(
        "request: {} of {}, from {client}, at {}\nroute: {}, {host}, {}\n",
        printable(&view.subject),
        printable(&view.issuer),
        view.at,
        route.listener,
        route.path,
    );
    let say = |what: &str, refusal: &RefusalView| {
        format!(
            "{what}: {}, {}\n",
            refusal.code,
            printable(&refusal.message)
        )
    };
    match &view.refusal {
        None => text.push_str("decision: allowed\n"),
        Some(refusal) => text.push_str(&say("decision: refused", refusal)),
    }
    if let Some(observed) = &view.observed {
        text.push_str(&say("observed only: would be refused", observed));
    }
    let policies = view.policies.iter().map(|policy| {
        let applies = if policy.applies { "yes" } else { "no" };
        vec![
            policy.name.clone(),
            applies.to_owned(),
            policy.because.clone(),
        ]
    });
    let limits = view.limits.iter().map(|limit| {
        vec![
            limit.limit.to_owned(),
            limit.value.clone(),
            limit.policies.join(", "),
        ]
    });
    let policies = table(&["POLICY", "APPLIES", "BECAUSE"], policies);
    let limits = table(&["LIMIT", "VALUE", "FROM"], limits);
    format!("{text}\n{policies}\n\n{limits}")
}

#[cfg(test)]
mod tests;
