//! The daemon's figures, as Prometheus reads them.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::bed::Bed;

/// Where the figures are, in the daemon's namespace.
pub const ADDRESS: &str = "127.0.0.1:9464";

/// `[metrics]` for that.
pub fn section() -> String {
    format!("[metrics]\naddress = \"{ADDRESS}\"\n")
}

/// What was exported.
#[derive(Clone, Debug)]
pub struct Metrics {
    text: String,
}

impl Metrics {
    /// What is exported now.
    pub fn scrape(bed: &Bed) -> Result<Self> {
        let output = bed
            .command(bed.daemon(), "curl")?
            .args(["--silent", "--show-error", "--fail", "--max-time", "5"])
            .arg(format!("http://{ADDRESS}/metrics"))
            .output()
            .context("run curl")?;
        ensure!(output.status.success(), "no figures: {output:?}");
        Ok(Self::of(String::from_utf8(output.stdout)?))
    }

    /// What a text exports.
    pub fn of(text: String) -> Self {
        Self { text }
    }

    /// The value of a series, written as it is exported.
    pub fn value(&self, series: &str) -> Option<f64> {
        self.text.lines().find_map(|line| {
            let value = line.strip_prefix(series)?.strip_prefix(' ')?;
            value.parse().ok()
        })
    }

    /// The sum over all series of a name whose labels hold this text.
    pub fn sum(&self, name: &str, labels: &str) -> f64 {
        let series = self.text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (found, value) = rest.rsplit_once(' ')?;
            let fits = found.is_empty() || found.starts_with('{');
            (fits && found.contains(labels)).then(|| value.parse::<f64>().ok())?
        });
        series.sum()
    }

    /// Whether Prometheus' own tool finds nothing to complain of.
    pub fn check(&self) -> Result<()> {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run promtool: is it installed?")?;
        let mut stdin = promtool.stdin.take().context("promtool's input")?;
        stdin.write_all(self.text.as_bytes())?;
        drop(stdin);
        let output = promtool.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() && said.is_empty(),
            "{said}\n{}",
            self.text
        );
        Ok(())
    }
}
