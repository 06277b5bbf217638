//! Streams of bytes.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::timeout,
};

use super::harness::{Client, World};
use crate::channel::{Refusal, ToWarden};

/// An upstream that takes one connection, and the world in front of it.
struct Stage {
    world: World,
    upstream: oneshot::Receiver<TcpStream>,
}

impl Stage {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, upstream) = oneshot::channel();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            sender.send(stream).unwrap();
        });
        let world = World::tcp(address).await;
        Self { world, upstream }
    }

    /// A client and its upstream, connected through the gateway.
    async fn connect(self) -> (World, Client, TcpStream) {
        let mut client = self.world.connect().await;
        client.write("hello").await;
        let mut upstream = self.upstream.await.unwrap();
        assert_eq!(&read(&mut upstream, 5).await, b"hello");
        (self.world, client, upstream)
    }
}

async fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let reading = timeout(Duration::from_secs(5), stream.read_exact(&mut bytes));
    reading.await.expect("bytes").unwrap();
    bytes
}

/// What comes until the end, and whether the end was an orderly one.
async fn rest(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let reading = timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes));
    let orderly = reading.await.expect("an end").is_ok();
    (bytes, orderly)
}

#[tokio::test]
async fn bytes_pass_both_ways_for_the_certificates_principal() {
    let (world, mut client, mut upstream) = Stage::new().await.connect().await;
    upstream.write_all(b"welcome").await.unwrap();
    assert_eq!(client.exactly(7).await, b"welcome");
    let opened = |message: &ToWarden| matches!(message, ToWarden::Open { .. });
    let ToWarden::Open { credential, .. } = world.warden.hears(opened).await else {
        panic!("no session was opened");
    };
    assert_eq!(credential.principal.subject, "localhost");
    assert!(credential.principal.issuer.starts_with("CN="));
    let bound = |message: &ToWarden| matches!(message, ToWarden::Bind { .. });
    world.warden.hears(bound).await;
    let touched = |message: &ToWarden| matches!(message, ToWarden::Touch { .. });
    world.warden.hears(touched).await;
}

#[tokio::test]
async fn a_client_that_has_said_everything_still_hears() {
    let (_world, mut client, mut upstream) = Stage::new().await.connect().await;
    client.write("last words").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut upstream).await, (b"last words".to_vec(), true));
    tokio::time::sleep(Duration::from_millis(100)).await;
    upstream.write_all(b"answer").await.unwrap();
    drop(upstream);
    assert_eq!(client.rest().await, (b"answer".to_vec(), true));
}

#[tokio::test]
async fn an_upstream_that_has_said_everything_still_hears() {
    let (_world, mut client, mut upstream) = Stage::new().await.connect().await;
    upstream.write_all(b"last words").await.unwrap();
    upstream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, (b"last words".to_vec(), true));
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.write("answer").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut upstream).await, (b"answer".to_vec(), true));
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_no_end_for_the_other_side() {
    let (_world, mut client, mut upstream) = Stage::new().await.connect().await;
    // FIN without close_notify.
    client.stream.get_mut().0.shutdown().await.unwrap();
    assert!(!rest(&mut upstream).await.1);
    assert!(!client.rest().await.1);

    let (_world, mut client, upstream) = Stage::new().await.connect().await;
    upstream.set_zero_linger().unwrap();
    drop(upstream);
    assert!(!client.rest().await.1);
}

#[tokio::test]
async fn the_end_of_the_session_resets_both_sides() {
    let (world, mut client, mut upstream) = Stage::new().await.connect().await;
    world.warden.end().await;
    assert_eq!(client.rest().await, (Vec::new(), false));
    assert_eq!(rest(&mut upstream).await, (Vec::new(), false));
}

#[tokio::test]
async fn a_farewell_is_no_end() {
    let (world, mut client, mut upstream) = Stage::new().await.connect().await;
    world.warden.farewell(Duration::from_secs(5)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    upstream.write_all(b"still here").await.unwrap();
    assert_eq!(client.exactly(10).await, b"still here");
}

#[tokio::test]
async fn a_refused_client_is_reset_and_the_upstream_never_hears_of_it() {
    let stage = Stage::new().await;
    *stage.world.warden.refuse.lock().unwrap() = Some(Refusal::SessionTooOld);
    let mut client = stage.world.connect().await;
    assert_eq!(client.rest().await, (Vec::new(), false));
    let refused = |message: &ToWarden| matches!(message, ToWarden::RefusedRequest(_));
    let ToWarden::RefusedRequest(record) = stage.world.warden.hears(refused).await else {
        panic!("nothing was refused");
    };
    assert_eq!(record.code, "session_too_old");
    assert_eq!(record.principal.unwrap().subject, "localhost");
    assert!(
        timeout(Duration::from_millis(100), stage.upstream)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn an_upstream_that_is_not_there_resets_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let world = World::tcp(address).await;
    let mut client = world.connect().await;
    assert_eq!(client.rest().await, (Vec::new(), false));
}

#[tokio::test]
async fn who_does_not_read_is_not_read_for() {
    let (_world, _client, mut upstream) = Stage::new().await.connect().await;
    let block = vec![0; 1024 * 1024];
    let mut written = 0;
    while let Ok(length) = timeout(Duration::from_millis(500), upstream.write(&block)).await {
        written += length.unwrap();
        // The sockets' own buffers grow to some megabytes.
        assert!(
            written < 64 * block.len(),
            "nothing holds the upstream back"
        );
    }
}
