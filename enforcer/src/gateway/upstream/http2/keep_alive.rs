//! Whether an upstream is still there.

use std::{sync::Arc, time::Duration};

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

use crate::{clock::boot_now, gateway::http::body::Progress};

/// How patient the gateway is with an upstream that says nothing although it has been asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// With requests under way, how long it may be silent before it is asked with a PING.
    pub(super) silence: Duration,
    /// How long it may then take to answer.
    pub(super) answer: Duration,
}

/// Waits until the upstream doesn't answer. `heard` is when it last said something; every request
/// that is under way holds it, too.
pub(super) async fn lost(mut pings: PingPong, heard: Arc<Progress>, patience: Patience) {
    loop {
        let silent = boot_now().saturating_duration_since(heard.last());
        let left = patience.silence.saturating_sub(silent);
        if !left.is_zero() {
            sleep(left).await;
            continue;
        }
        // One is held here, and one by the connection.
        if Arc::strong_count(&heard) <= 2 {
            sleep(patience.silence).await;
            continue;
        }
        match timeout(patience.answer, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => heard.note(boot_now()),
            // The connection is at its end, and says so itself.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::{io::duplex, time::timeout};

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(10);

    /// A connection whose server is driven, or not any more.
    async fn connection(driven: bool) -> (PingPong, h2::client::SendRequest<Bytes>) {
        let (ours, theirs) = duplex(64 * 1024);
        let server = tokio::spawn(h2::server::handshake(theirs));
        let (requests, mut connection) = h2::client::handshake(ours).await.unwrap();
        let pings = connection.ping_pong().unwrap();
        tokio::spawn(connection);
        let mut server = server.await.unwrap().unwrap();
        tokio::spawn(async move {
            if driven {
                while server.accept().await.is_some() {}
            }
            std::future::pending::<()>().await;
            drop(server);
        });
        (pings, requests)
    }

    fn patience(answer: Duration) -> Patience {
        let silence = SHORT;
        Patience { silence, answer }
    }

    #[tokio::test]
    async fn who_is_asked_and_silent_is_lost() {
        let connections = Arc::new(Progress::new(boot_now()));
        let (pings, _requests) = connection(false).await;
        let lost = lost(pings, Arc::clone(&connections), patience(SHORT));
        let mut lost = std::pin::pin!(lost);
        let idle = timeout(10 * SHORT, lost.as_mut()).await;
        assert!(idle.is_err(), "none is under way");
        let _under_way = Arc::clone(&connections);
        timeout(LONG, lost).await.expect("it is waited for in vain");
    }

    #[tokio::test]
    async fn who_answers_is_not() {
        let connections = Arc::new(Progress::new(boot_now()));
        let _under_way = Arc::clone(&connections);
        let began_at = connections.last();
        let (pings, _requests) = connection(true).await;
        let lost = lost(pings, Arc::clone(&connections), patience(LONG));
        assert!(timeout(10 * SHORT, lost).await.is_err());
        assert!(connections.last() > began_at, "no answer was noted");
    }
}
