//! A syslog server that nobody here wrote: it takes messages over TLS, TCP and UDP.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use crate::{bed::Bed, certificates::Authority, process::Process, wait};

const TLS_PORT: u16 = 6514;
const TCP_PORT: u16 = 6601;
const UDP_PORT: u16 = 6515;

/// Where it takes messages over `tls`, `tcp` or `udp`.
pub fn address(transport: &str) -> String {
    let port = match transport {
        "tls" => TLS_PORT,
        "tcp" => TCP_PORT,
        _ => UDP_PORT,
    };
    format!("{transport}://127.0.0.1:{port}")
}

/// A running rsyslogd on loopback of the daemon's namespace.
#[derive(Debug)]
pub struct Rsyslog {
    folder: std::path::PathBuf,
    process: Process,
}

impl Rsyslog {
    /// Starts it with a certificate of `authority`'s.
    pub fn start(bed: &Bed, authority: &Authority) -> Result<Self> {
        let folder = bed.path("rsyslog");
        fs::create_dir_all(&folder).context("make rsyslog's folder")?;
        let (certificate, key) = authority.server()?.write(bed, "rsyslog/server")?;
        let ca = bed.write("rsyslog/ca.pem", authority.pem())?;
        let home = folder.display();
        let into = |transport: &str| {
            format!(
                r#"ruleset(name="{transport}") {{
    action(type="omfile" file="{home}/{transport}.log" template="raw")
}}"#
            )
        };
        bed.write(
            "rsyslog/rsyslog.conf",
            format!(
                r#"global(
    workDirectory="{home}"
    defaultNetstreamDriverCAFile="{}"
    defaultNetstreamDriverCertFile="{}"
    defaultNetstreamDriverKeyFile="{}"
)
template(name="raw" type="string" string="%rawmsg%\n")
module(load="imtcp")
module(load="imudp")
{}
{}
{}
input(type="imtcp" address="127.0.0.1" port="{TLS_PORT}" ruleset="tls"
    streamdriver.name="gtls" streamdriver.mode="1" streamdriver.authmode="anon")
input(type="imtcp" address="127.0.0.1" port="{TCP_PORT}" ruleset="tcp")
input(type="imudp" address="127.0.0.1" port="{UDP_PORT}" ruleset="udp")
"#,
                ca.display(),
                certificate.display(),
                key.display(),
                into("tls"),
                into("tcp"),
                into("udp"),
            ),
        )?;
        let process = spawn(bed)?;
        Ok(Self { folder, process })
    }

    /// Ends it as an upgrade would, and starts it again.
    pub fn restart(&mut self, bed: &Bed) -> Result<()> {
        self.process.signal(Signal::TERM)?;
        self.process.wait()?;
        self.process = spawn(bed)?;
        Ok(())
    }

    /// Numbers of the records that came over `transport`.
    pub fn sequences(&self, transport: &str) -> Result<BTreeSet<u64>> {
        let file = self.folder.join(format!("{transport}.log"));
        let text = fs::read_to_string(file).context("read what rsyslog wrote")?;
        let numbers = text.lines().filter_map(|line| {
            let (_, rest) = line.split_once("[enforcer@32473 sequence=\"")?;
            rest.split_once('"')?.0.parse().ok()
        });
        Ok(numbers.collect())
    }
}

fn spawn(bed: &Bed) -> Result<Process> {
    let mut command = bed.command(bed.daemon(), "rsyslogd")?;
    command.arg("-n");
    command.arg("-f").arg(bed.path("rsyslog/rsyslog.conf"));
    command.arg("-i").arg(bed.path("rsyslog/rsyslog.pid"));
    let process = Process::spawn(&mut command, "rsyslogd")?;
    for port in [TLS_PORT, TCP_PORT] {
        wait::until("rsyslogd listened", || {
            let mut ss = bed.command(bed.daemon(), "ss").ok()?;
            let listening = ss.args(["-Hltn", "src", &format!("127.0.0.1:{port}")]);
            (!listening.output().ok()?.stdout.is_empty()).then_some(())
        })?;
    }
    Ok(process)
}
