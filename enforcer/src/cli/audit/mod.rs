//! `enforcer audit`: the audit log, through the daemon, or from the database if none runs.

mod arguments;
mod print;
mod verify;

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

pub use self::arguments::{
    AuditArgs, AuditCommand, ExportArgs, FilterArgs, Format, QueryArgs, VerifyArgs,
};
use self::print::Printer;
use super::{
    client::{Client, ClientError},
    output::reader_left,
};
use crate::{
    audit::{AuditReader, Filter, Record},
    clock::{self, WallInstant},
};

/// How often a followed log is looked at.
const TICK: Duration = Duration::from_millis(250);
/// Records taken at a time.
const PAGE: usize = 500;
/// What is asked for, up to the query.
const PATH: &str = "/v1/audit?";

/// Does what the arguments say.
///
/// # Errors
/// If the daemon does not answer, or none runs and its log can't be read.
pub fn run(args: AuditArgs) -> Result<ExitCode> {
    let settings = args.target.config.audit()?;
    match args.command {
        Some(AuditCommand::Verify(verification)) => verify::run(verification, &settings),
        Some(AuditCommand::Export(export)) => {
            let wanted = Wanted {
                filter: export.filter.filter(clock::wall_now()),
                follow: false,
                limit: None,
            };
            let source = Source {
                socket: &args.target.socket()?,
                database: &settings.database(),
            };
            match &export.output {
                Some(path) => {
                    let file = File::create_new(path)
                        .with_context(|| format!("cannot make {}", path.display()))?;
                    source.print(
                        &wanted,
                        Printer::new(io::BufWriter::new(file), export.format),
                    )
                }
                None => source.print(&wanted, Printer::new(io::stdout().lock(), export.format)),
            }
        }
        None => {
            let wanted = Wanted {
                filter: args.query.filter.filter(clock::wall_now()),
                follow: args.follow,
                limit: args.query.limit,
            };
            let source = Source {
                socket: &args.target.socket()?,
                database: &settings.database(),
            };
            let format = args.query.format();
            source.print(&wanted, Printer::new(io::stdout().lock(), format))
        }
    }
}

/// Which records.
#[derive(Clone, Debug, Default)]
struct Wanted {
    filter: Filter,
    follow: bool,
    limit: Option<u64>,
}

/// Where the log is.
struct Source<'a> {
    socket: &'a Path,
    database: &'a Path,
}

impl Source<'_> {
    fn print<W: Write>(&self, wanted: &Wanted, mut printer: Printer<W>) -> Result<ExitCode> {
        let mut print = |lines: &[u8]| printer.print(lines);
        let asked = Client::new(self.socket)?.lines(&path(wanted), &mut print);
        let printed = match asked {
            Err(error) if is_not_running(&error) => self.read(wanted, &mut print),
            asked => asked,
        };
        // The header, even if there is no record.
        match printed.and_then(|()| Ok(print(b"")?)) {
            Err(error) if !reader_left(&error) => Err(error),
            _ => Ok(ExitCode::SUCCESS),
        }
    }

    fn read(&self, wanted: &Wanted, mut print: impl FnMut(&[u8]) -> io::Result<()>) -> Result<()> {
        let filter = wanted.filter.clone();
        let mut reader = if wanted.follow {
            AuditReader::follow(self.database, filter)?
        } else {
            AuditReader::open(self.database, filter)?
        };
        if let Some(limit) = wanted.limit {
            reader.skip_to_latest(limit)?;
        }
        loop {
            let records = reader.read(PAGE)?;
            if records.is_empty() && !wanted.follow {
                return Ok(());
            }
            if records.is_empty() {
                thread::sleep(TICK);
            }
            let lines: Vec<_> = records.iter().map(|record| record.line() + "\n").collect();
            print(lines.concat().as_bytes())?;
        }
    }
}

/// Takes in the records since then, in their order. They come from the daemon at `socket`; if none
/// runs, from the `database`. Those of a later version are passed over.
pub(super) fn read_records(
    socket: &Path,
    database: &Path,
    since: WallInstant,
    mut take: impl FnMut(Record),
) -> Result<()> {
    let wanted = Wanted {
        filter: Filter {
            since: Some(since),
            ..Filter::default()
        },
        ..Wanted::default()
    };
    let mut take = |lines: &[u8]| {
        let lines = lines.split(|byte| *byte == b'\n');
        lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .for_each(&mut take);
        Ok(())
    };
    let answer = Client::new(socket)?.lines(&path(&wanted), &mut take);
    match answer {
        Err(error) if is_not_running(&error) => Source { socket, database }.read(&wanted, take),
        answer => answer,
    }
}

fn is_not_running(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ClientError::NotRunning { .. }))
}

fn path(wanted: &Wanted) -> String {
    let mut query = form_urlencoded::Serializer::for_suffix(PATH.to_owned(), PATH.len());
    query.extend_pairs(wanted.filter.parameters());
    query.extend_pairs(wanted.limit.map(|limit| ("limit", limit.to_string())));
    if wanted.follow {
        query.append_pair("follow", "true");
    }
    query.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Event;

    #[test]
    fn what_is_asked_of_the_daemon_survives_the_way() {
        let wanted = Wanted {
            filter: Filter {
                since: Some(WallInstant::from_unix_seconds(0)),
                subject: Some("a&b=c é".to_owned()),
                event: Some(Event::SessionEnded),
                ..Filter::default()
            },
            follow: true,
            limit: Some(7),
        };
        assert_eq!(
            path(&wanted),
            "/v1/audit?since=1970-01-01T00%3A00%3A00.000000Z&subject=a%26b%3Dc+%C3%A9\
             &event=session_ended&limit=7&follow=true"
        );
        assert_eq!(path(&Wanted::default()), "/v1/audit?");
    }
}
