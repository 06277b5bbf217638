//! How many queries a second go through the gateway, compared with going to the server directly.

use anyhow::{Context as _, Result, ensure};

use crate::{
    Scene,
    postgres::{Pg, Proof, run},
};

const ROUNDS: usize = 3;
const CLIENTS: &str = "8";
const SECONDS: &str = "4";

/// Runs `pgbench -S` along each way in turn, and prints the medians.
pub fn measure() -> Result<()> {
    let mut scene = Scene::new("pgbench")?;
    let _server = scene.serve_postgres("certificate", None)?;
    let daemon = scene.start()?;
    let identity = scene.authority.client("bench")?;
    let mut gateway = scene.pg("trusted", &Proof::Certificate(&identity, "bench"))?;
    let mut encrypted = scene.pg_of_server("trusted")?;
    encrypted.set("PGSSLMODE", "verify-full");
    let mut clear = scene.pg_of_server("trusted")?;
    clear.set("PGSSLMODE", "disable");
    let ways = [&mut encrypted, &mut clear, &mut gateway];
    for way in ways {
        way.set("PGOPTIONS", "-c log_statement=none");
    }
    let mut initialize = clear.command("pgbench")?;
    initialize.args(["--initialize", "--quiet", "--scale=10"]);
    ensure!(run(&mut initialize)?.code == 0, "pgbench --initialize");

    let ways = [
        ("directly, within TLS", encrypted),
        ("directly, in the clear", clear),
        ("through the gateway", gateway),
    ];
    println!(
        "\n{:<24}{:>14}{:>14}{:>14}",
        "pgbench -S", "simple", "prepared", "1 client"
    );
    let mut rates = Vec::new();
    for (name, pg) in &ways {
        rates.push((name, pg, [Vec::new(), Vec::new(), Vec::new()]));
    }
    for _ in 0..ROUNDS {
        for (_, pg, rates) in &mut rates {
            rates[0].push(rate(pg, "simple", CLIENTS)?);
            rates[1].push(rate(pg, "prepared", CLIENTS)?);
            rates[2].push(rate(pg, "prepared", "1")?);
        }
    }
    drop(daemon);
    for (name, _, rates) in &mut rates {
        let [simple, prepared, single] = rates.each_mut().map(|rates| median(rates));
        println!("{name:<24}{simple:>12.0}/s{prepared:>12.0}/s{single:>12.0}/s");
    }
    let medians: Vec<_> = rates
        .iter_mut()
        .map(|(_, _, rates)| rates.each_mut().map(|rates| median(rates)))
        .collect();
    for (direct, name) in [(0, "ratio to TLS"), (1, "ratio to the clear")] {
        let ratio = |mode: usize| medians[2][mode] / medians[direct][mode];
        println!(
            "{name:<24}{:>14.2}{:>14.2}{:>14.2}",
            ratio(0),
            ratio(1),
            ratio(2)
        );
    }
    Ok(())
}

/// Transactions a second.
fn rate(pg: &Pg<'_>, protocol: &str, clients: &str) -> Result<f64> {
    let mut pgbench = pg.command("pgbench")?;
    pgbench.args([
        "-n", "-S", "-j", "2", "-T", SECONDS, "-c", clients, "-M", protocol,
    ]);
    let output = run(&mut pgbench)?;
    let line = output
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("tps = "));
    let rate = line.and_then(|line| line.split(' ').next()?.parse().ok());
    rate.with_context(|| format!("pgbench: {output:?}"))
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
