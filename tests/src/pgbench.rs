//! How many transactions a second go through the gateway, and what they cost it, compared with going
//! to the server directly and with a [forwarder](crate::forwarder) that does nothing but TLS.
//!
//! Client, server and what is in between share the machine, so that what one of them costs is missing
//! to the others. The ways are taken in turns, a few times, and compared by their medians. Processor
//! time says what a transaction costs, whatever else the machine does meanwhile.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    Scene,
    bed::DAEMON_IPV4,
    forwarder::{self, Served, forward},
    postgres::{self, Pg, Proof, run},
    process,
};

const TURNS: usize = 3;
const SECONDS: &str = "2";
const FORWARDER_PORT: u16 = 5433;
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// What pgbench does.
struct Load {
    name: &'static str,
    protocol: &'static str,
    clients: &'static str,
}

const LOADS: [Load; 3] = [
    Load {
        name: "simple, 8 clients",
        protocol: "simple",
        clients: "8",
    },
    Load {
        name: "prepared, 8 clients",
        protocol: "prepared",
        clients: "8",
    },
    Load {
        name: "prepared, 1 client",
        protocol: "prepared",
        clients: "1",
    },
];

/// How pgbench gets to the server.
struct Way<'bed> {
    name: &'static str,
    pg: Pg<'bed>,
    /// The processes on it that are neither the client nor the server.
    between: Vec<(&'static str, u32)>,
    /// Of each load.
    turns: [Vec<Turn>; LOADS.len()],
}

/// What a run of pgbench came to.
struct Turn {
    /// Transactions a second.
    rate: f64,
    /// Processor time for one, of each process in between.
    costs: Vec<Duration>,
}

/// Runs `pgbench -S` along each way in turn, and prints the medians.
pub fn measure() -> Result<()> {
    let mut scene = Scene::new("pgbench")?;
    let _server = scene.serve_postgres("certificate", None)?;
    let daemon = scene.start()?;
    let forwarder = start_forwarder(&scene)?;
    let identity = scene.authority.client("bench")?;

    let mut encrypted = scene.pg_of_server("trusted")?;
    encrypted.set("PGSSLMODE", "verify-full");
    let mut clear = scene.pg_of_server("trusted")?;
    clear.set("PGSSLMODE", "disable");
    let mut forwarded = scene.pg_of_server("trusted")?;
    forwarded.set("PGPORT", forwarder.address.port());
    let gateway = scene.pg("trusted", &Proof::Certificate(&identity, "bench"))?;

    let mut initialize = clear.command("pgbench")?;
    initialize.args(["--initialize", "--quiet", "--scale=10"]);
    ensure!(run(&mut initialize)?.code == 0, "pgbench --initialize");

    let own = std::process::id();
    let mut ways = [
        Way::new("directly, in the clear", clear, vec![]),
        Way::new("directly, within TLS", encrypted, vec![]),
        Way::new("forwarder", forwarded, vec![("forwarder", own)]),
        Way::new(
            "gateway",
            gateway,
            vec![("gateway", daemon.gateway_pid()?), ("warden", daemon.pid())],
        ),
    ];
    for _ in 0..TURNS {
        for way in &mut ways {
            for (load, turns) in LOADS.iter().zip(&mut way.turns) {
                turns.push(load.run(&way.pg, &way.between)?);
            }
        }
    }
    drop(daemon);
    print(&ways);
    Ok(())
}

fn print([clear, direct, forwarder, gateway]: &[Way<'_>; 4]) {
    let headings = LOADS.each_ref().map(|load| load.name.to_owned());
    row("pgbench -S", headings);
    println!("transactions a second");
    for way in [clear, direct, forwarder, gateway] {
        row(way.name, way.rates().map(|rate| format!("{rate:.0}")));
    }
    println!("of what goes through directly, within TLS");
    for way in [forwarder, gateway] {
        row(way.name, ratios(way, direct));
    }
    println!("of what goes through the forwarder");
    row(gateway.name, ratios(gateway, forwarder));
    println!("processor time of a transaction, in microseconds");
    for way in [forwarder, gateway] {
        for (at, (name, _)) in way.between.iter().enumerate() {
            let micros = way.costs(at).map(|cost| cost.as_secs_f64() * 1e6);
            row(name, micros.map(|micros| format!("{micros:.1}")));
        }
    }
}

fn row(name: &str, values: [String; LOADS.len()]) {
    print!("  {name:<24}");
    for value in values {
        print!("{value:>22}");
    }
    println!();
}

fn ratios(way: &Way<'_>, to: &Way<'_>) -> [String; LOADS.len()] {
    let (rates, to) = (way.rates(), to.rates());
    std::array::from_fn(|load| format!("{:.2}", rates[load] / to[load]))
}

impl<'bed> Way<'bed> {
    fn new(name: &'static str, mut pg: Pg<'bed>, between: Vec<(&'static str, u32)>) -> Self {
        pg.set("PGOPTIONS", "-c log_statement=none");
        Self {
            name,
            pg,
            between,
            turns: LOADS.each_ref().map(|_| Vec::new()),
        }
    }

    fn rates(&self) -> [f64; LOADS.len()] {
        let rates = |turns: &Vec<Turn>| turns.iter().map(|turn| turn.rate).collect();
        self.turns
            .each_ref()
            .map(|turns| median(rates(turns), f64::total_cmp))
    }

    /// Of the process in between that has this place.
    fn costs(&self, at: usize) -> [Duration; LOADS.len()] {
        let costs = |turns: &Vec<Turn>| turns.iter().map(|turn| turn.costs[at]).collect();
        self.turns
            .each_ref()
            .map(|turns| median(costs(turns), Duration::cmp))
    }
}

impl Load {
    fn run(&self, pg: &Pg<'_>, between: &[(&str, u32)]) -> Result<Turn> {
        let times = || -> Result<Vec<_>> {
            let pids = between.iter().map(|(_, pid)| *pid);
            pids.map(process::processor_time).collect()
        };
        let before = times()?;
        let mut pgbench = pg.command("pgbench")?;
        pgbench.args(["-n", "-S", "-j", "2", "-T", SECONDS]);
        pgbench.args(["-c", self.clients, "-M", self.protocol]);
        let output = run(&mut pgbench)?;
        let after = times()?;
        let number = |name: &str| -> Option<f64> {
            let line = output
                .stdout
                .lines()
                .find_map(|line| line.strip_prefix(name))?;
            line.split([' ', '/']).next()?.parse().ok()
        };
        let numbers = number("tps = ").zip(number("number of transactions actually processed: "));
        let (rate, transactions) = numbers.with_context(|| format!("pgbench: {output:?}"))?;
        let used = before
            .iter()
            .zip(&after)
            .map(|(before, after)| *after - *before);
        Ok(Turn {
            rate,
            costs: used.map(|used| used.div_f64(transactions)).collect(),
        })
    }
}

fn median<T>(mut values: Vec<T>, order: impl FnMut(&T, &T) -> std::cmp::Ordering) -> T {
    values.sort_by(order);
    values.swap_remove(values.len() / 2)
}

/// On its way to the server is no TLS, as on the gateway's.
fn start_forwarder(scene: &Scene) -> Result<Served> {
    let acceptor = forwarder::acceptor(scene)?;
    let server = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), postgres::PORT);
    let converse = move |stream| converse(stream, acceptor.clone(), server);
    forwarder::serve(scene.bed.daemon(), (DAEMON_IPV4, FORWARDER_PORT), converse)
}

async fn converse(mut stream: TcpStream, acceptor: TlsAcceptor, server: SocketAddr) -> Result<()> {
    let mut request = [0; SSL_REQUEST.len()];
    stream.read_exact(&mut request).await?;
    ensure!(request == SSL_REQUEST, "no SSLRequest: {request:?}");
    stream.write_all(b"S").await?;
    forward(stream, acceptor, server).await
}
