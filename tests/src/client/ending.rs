//! How a connection ended, as its client saw it.

use std::{error::Error, io};

use enforcer::clock::{self, BootInstant};

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The whole body, or an orderly end of TLS.
    Complete,
    /// A WebSocket close frame.
    Close(u16, String),
    /// A TCP reset.
    Reset,
    /// The stream ended in the middle.
    Truncated,
    /// Anything else.
    Other(String),
}

/// How and when.
#[derive(Clone, Debug)]
pub struct Ending {
    /// How.
    pub how: End,
    /// When the client knew.
    pub at: BootInstant,
}

impl Ending {
    pub(super) fn now(how: End) -> Self {
        Self {
            how,
            at: clock::boot_now(),
        }
    }

    /// The end that an error stands for.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        Self::now(classify(error))
    }
}

fn classify(error: &(dyn Error + 'static)) -> End {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            match error.kind() {
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => return End::Reset,
                io::ErrorKind::UnexpectedEof => return End::Truncated,
                _ => {}
            }
        }
        if error
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_incomplete_message)
        {
            return End::Truncated;
        }
        cause = error.source();
    }
    End::Other(error.to_string())
}
