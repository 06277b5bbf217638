//! What the gateway does while it is still privileged: it takes what the warden sends, and reads
//! every file that it will ever need.

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    authn::signing::SigningKeyFault,
    channel::{METRICS_LISTENER, ToGateway, ToWarden, receive_blocking, send_blocking},
    config::{Config, ConfigError, Listener, Protocol, RequestIdentity, TokenCookie},
    gateway::{
        Service, Target,
        assertion::Assertions,
        export::Receivers,
        http::{http2, path::PathError, route::RouteTable},
        identity::{Identifier, IdentityError},
        postgres::{self, Login, PostgresService},
        revoked::{self, RevocationListError},
        tcp::TcpService,
        tls::{self, ServerTlsError},
        traces::{self, Exporter, Tracer},
        tunnel::Tunnels,
        upstream::{
            Upstream,
            tls::{NativeRoots, UpstreamTlsError},
        },
        webhook::{WebhookError, Webhooks},
    },
    metrics::{Counters, RouteLabels},
    policy::PolicySet,
    session::CertificateId,
};

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("the channel to the warden")]
    Channel(#[source] io::Error),
    #[error("the warden did not say how to start")]
    NotStarted,
    #[error("the warden sent {sent} descriptors for {named} listeners")]
    Descriptors { sent: usize, named: usize },
    #[error("cannot read the configuration that the warden sent")]
    ReadConfig(#[source] io::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("listener `{0}` is not in the configuration")]
    UnknownListener(String),
    #[error("listener `{0}`")]
    Listener(String, #[source] ServerTlsError),
    #[error("no route starts at listener `{0}`")]
    NoRoute(String),
    #[error("identity")]
    Identity(#[from] IdentityError),
    #[error("client certificates")]
    Revocation(#[from] RevocationListError),
    #[error("assertion")]
    Assertion(#[from] SigningKeyFault),
    #[error("the path of a route")]
    Routes(#[from] PathError),
    #[error("the password of the route from `{0}`")]
    Password(String, #[source] io::Error),
    #[error("audit export `{0}`")]
    Export(String, #[source] UpstreamTlsError),
    #[error("the upstream of the route from `{0}`")]
    Upstream(String, #[source] UpstreamTlsError),
    #[error("the traces")]
    Traces(#[source] UpstreamTlsError),
    #[error("the webhook `{0}`")]
    Webhook(String, #[source] WebhookError),
}

/// Everything that serving needs.
pub(crate) struct Started {
    pub(crate) receivers: Receivers,
    pub(crate) channel: OwnedFd,
    pub(crate) handover: OwnedFd,
    pub(crate) listeners: Vec<StartedListener>,
    /// Where the figures are served.
    pub(crate) metrics: Option<OwnedFd>,
    /// To serve as.
    pub(crate) user: String,
    pub(crate) pre_authentication_timeout: Duration,
    pub(crate) identifier: Identifier,
    pub(crate) assertions: Option<Assertions>,
    /// What clients' authorities have revoked.
    pub(crate) revoked: Vec<CertificateId>,
    pub(crate) routes: RouteTable,
    pub(crate) policies: PolicySet,
    pub(crate) targets: Vec<Target>,
    pub(crate) counters: Counters,
    /// Where spans begin, and what takes them away.
    pub(crate) traces: Option<(Tracer, Exporter)>,
    /// Who alerts are sent to.
    pub(crate) webhooks: Webhooks,
    pub(crate) tunnels: Tunnels,
}

/// A listening socket and the keys of its TLS.
pub(crate) struct StartedListener {
    pub(crate) name: String,
    pub(crate) socket: OwnedFd,
    pub(crate) acceptor: tls::Acceptor,
    pub(crate) service: Service,
    /// How requests say whose they are.
    pub(crate) identity: RequestIdentity,
    /// The cookie that tokens may come in.
    pub(crate) cookie: Option<TokenCookie>,
    /// Networks of the proxies that announce their clients.
    pub(crate) proxies: Vec<IpNet>,
}

/// Takes the first message from the channel on standard input, and loads what it names.
pub(crate) fn receive() -> Result<Started, StartError> {
    let stdin = take_stdin().map_err(StartError::Channel)?;
    let received = receive_blocking::<ToGateway>(stdin).map_err(StartError::Channel)?;
    let Some((ToGateway::Start { config_path, names }, fds, channel)) = received else {
        return Err(StartError::NotStarted);
    };
    let warden = channel.try_clone().map_err(StartError::Channel)?;
    load(config_path, names, fds, channel)
        .inspect_err(|error| give_up(&warden, &anyhow::anyhow!("{}", with_causes(error))))
}

/// Tells the warden why this gateway cannot start.
pub(crate) fn give_up(warden: &OwnedFd, error: &anyhow::Error) {
    let reason = format!("{error:#}");
    if let Err(error) = send_blocking(warden, &ToWarden::CannotStart { reason }) {
        tracing::error!("the warden cannot be told: {error}");
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Loads what a start message names.
pub(crate) fn load(
    config_path: PathBuf,
    names: Vec<String>,
    fds: Vec<OwnedFd>,
    channel: OwnedFd,
) -> Result<Started, StartError> {
    let sent = fds.len();
    let mut fds = fds.into_iter();
    let (Some(memfd), Some(handover), true) = (fds.next(), fds.next(), sent == names.len() + 2)
    else {
        return Err(StartError::Descriptors {
            sent,
            named: names.len(),
        });
    };
    let text = read(memfd).map_err(StartError::ReadConfig)?;
    let config = Config::parse(&text, &config_path)?;

    let mut listeners = Vec::new();
    let mut metrics = None;
    for (name, socket) in names.into_iter().zip(fds) {
        if name == METRICS_LISTENER {
            metrics = Some(socket);
        } else {
            listeners.push(load_listener(&config, name, socket)?);
        }
    }
    let counters = Counters::default();
    let mut roots = NativeRoots::default();
    let mut targets = Vec::new();
    for route in &config.routes {
        targets.push(Target {
            counters: counters.route(RouteLabels {
                listener: route.listener.clone(),
                host: route.host.clone().unwrap_or_default(),
                path: route.path.clone(),
            }),
            forward_token: route.forward_token,
            assertion_audience: route.assertion_audience.as_deref().map(Into::into),
            upstream: Upstream::load(route, &mut roots)
                .map_err(|error| StartError::Upstream(route.listener.clone(), error))?,
            login: (route.postgres.as_ref())
                .map(Login::load)
                .transpose()
                .map_err(|error| StartError::Password(route.listener.clone(), error))?,
        });
    }
    let receivers = Receivers::load(&config, &mut roots)
        .map_err(|(name, error)| StartError::Export(name, error))?;
    let webhooks = Webhooks::load(&config.monitoring.webhooks, &mut roots)
        .map_err(|(name, error)| StartError::Webhook(name, error))?;
    let traces = config.monitoring.traces.as_ref();
    let traces = traces
        .map(|configured| traces::load(configured, &mut roots))
        .transpose()
        .map_err(StartError::Traces)?;
    Ok(Started {
        channel,
        receivers,
        handover,
        listeners,
        identifier: Identifier::load(&config.identity, &mut roots)?,
        metrics,
        counters,
        traces,
        webhooks,
        assertions: config
            .assertion
            .as_ref()
            .map(Assertions::load)
            .transpose()?,
        revoked: revoked::load(&config)?,
        routes: RouteTable::new(&config.routes)?,
        policies: PolicySet::new(&config.policies, &config.routes, &config.tunnels),
        targets,
        tunnels: Tunnels::new(&config),
        user: config.daemon.user,
        pre_authentication_timeout: config.daemon.pre_authentication_timeout,
    })
}

fn load_listener(
    config: &Config,
    name: String,
    socket: OwnedFd,
) -> Result<StartedListener, StartError> {
    let Some(Listener {
        tls,
        protocol,
        identity,
        cookie,
        proxies,
        ..
    }) = config.listeners.get(&name)
    else {
        return Err(StartError::UnknownListener(name));
    };
    // Where requests don't choose among them, a listener has one route.
    let only_route = || {
        let mut routes = config.routes.iter();
        let route = routes.position(|route| route.listener == name);
        route.ok_or_else(|| StartError::NoRoute(name.clone()))
    };
    let (service, alpn): (_, &[&[u8]]) = match protocol {
        Protocol::Http => (Service::Http, &[http2::ALPN, b"http/1.1"]),
        Protocol::Tcp(subject) => {
            let route = only_route()?;
            let subject = subject.clone();
            (Service::Tcp(TcpService { subject, route }), &[])
        }
        Protocol::Postgres => {
            let route = only_route()?;
            let service = PostgresService { route };
            (Service::Postgres(service), &[postgres::ALPN])
        }
    };
    let acceptor =
        tls::load(tls, alpn).map_err(|error| StartError::Listener(name.clone(), error))?;
    Ok(StartedListener {
        name,
        socket,
        acceptor,
        service,
        identity: identity.clone(),
        cookie: cookie.clone(),
        proxies: proxies.clone(),
    })
}

/// Standard input, which is `/dev/null` from then on.
fn take_stdin() -> io::Result<OwnedFd> {
    let channel = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(channel)
}

/// The warden's copy shares its offset: the text is read from the start, wherever that is.
fn read(memfd: OwnedFd) -> io::Result<String> {
    let mut file = File::from(memfd);
    file.rewind()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}
