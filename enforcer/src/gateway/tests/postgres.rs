//! PostgreSQL's protocol, byte by byte.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

use super::harness::{Client, World, token};
use crate::{
    channel::{RefusedRequest, ToWarden},
    config::{CertificateName, Login, LoginUser, PostgresRoute, RequestIdentity},
};

const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];
const GSS_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 48];
const READY: &[u8] = b"Z\0\0\0\x05I";
const UPSTREAM_PROCESS: u32 = 77;

/// A start-up packet of this version.
fn startup(minor: u16, parameters: &str) -> Vec<u8> {
    let length = u32::try_from(parameters.len() + 9).unwrap();
    let version = (3 << 16) | u32::from(minor);
    [
        &length.to_be_bytes(),
        &version.to_be_bytes(),
        parameters.as_bytes(),
        &[0],
    ]
    .concat()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// The world, and what connects to the upstream behind it.
struct Stage {
    world: World,
    upstreams: mpsc::Receiver<TcpStream>,
}

impl Stage {
    async fn new(identity: RequestIdentity) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, upstreams) = mpsc::channel(8);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                sender.send(stream).await.unwrap();
            }
        });
        let login = match identity {
            RequestIdentity::Certificate(_) => Login::Client,
            _ => Login::Gateway(LoginUser::Fixed("app".to_owned()), None),
        };
        let settings = PostgresRoute {
            login,
            forward_identity: true,
        };
        let world = World::postgres(address, identity, settings).await;
        Self { world, upstreams }
    }

    async fn by_certificate() -> Self {
        Self::new(RequestIdentity::Certificate(CertificateName::Any)).await
    }

    /// A connection in the clear.
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.world.address).await.unwrap()
    }

    /// A client that has asked for TLS, and got it.
    async fn client(&self) -> Client {
        let mut tcp = self.connect().await;
        tcp.write_all(SSL_REQUEST).await.unwrap();
        assert_eq!(tcp.read_u8().await.unwrap(), b'S');
        self.world.begin_tls(tcp).await
    }

    async fn upstream(&mut self) -> Upstream {
        let accepted = timeout(Duration::from_secs(5), self.upstreams.recv());
        Upstream(accepted.await.expect("a connection").unwrap())
    }

    /// A client that has been let in by the upstream; with the key that it was given.
    async fn flowing(&mut self, minor: u16) -> (Client, Upstream, Vec<u8>) {
        let mut client = self.client().await;
        client.write(startup(minor, "user\0alice\0")).await;
        let mut upstream = self.upstream().await;
        upstream.packet().await;
        let secret = match minor {
            0 => vec![1; 4],
            _ => vec![1; 32],
        };
        upstream.let_in(&secret).await;
        assert_eq!(read_message(&mut client).await, (b'R', vec![0; 4]));
        let (kind, key) = read_message(&mut client).await;
        assert_eq!(kind, b'K');
        assert_eq!(read_message(&mut client).await, (b'Z', b"I".to_vec()));
        (client, upstream, key)
    }

    /// What was refused, as the audit log has it.
    async fn refused(&self) -> RefusedRequest {
        let refused = |message: &ToWarden| matches!(message, ToWarden::RefusedRequest(_));
        match self.world.warden.hears(refused).await {
            ToWarden::RefusedRequest(record) => record,
            other => panic!("{other:?}"),
        }
    }

    fn refused_nothing(&self) -> bool {
        let heard = self.world.warden.heard();
        !heard
            .iter()
            .any(|it| matches!(it, ToWarden::RefusedRequest(_)))
    }
}

/// The gateway's connection, at the upstream.
struct Upstream(TcpStream);

impl Upstream {
    /// A packet without its length.
    async fn packet(&mut self) -> Vec<u8> {
        let length = self.0.read_u32().await.unwrap();
        self.exactly(length as usize - 4).await
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let reading = timeout(Duration::from_secs(5), self.0.read_exact(&mut bytes));
        reading.await.expect("bytes").unwrap();
        bytes
    }

    async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn let_in(&mut self, secret: &[u8]) {
        self.write(message(b'R', &[0; 4])).await;
        let key = [&UPSTREAM_PROCESS.to_be_bytes(), secret].concat();
        self.write(message(b'K', &key)).await;
        self.write(READY).await;
    }

    /// Everything to the end, and whether it was an orderly one.
    async fn rest(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        let reading = timeout(Duration::from_secs(5), self.0.read_to_end(&mut bytes));
        let orderly = reading.await.expect("an end").is_ok();
        (bytes, orderly)
    }
}

async fn read_message(client: &mut Client) -> (u8, Vec<u8>) {
    let reading = timeout(Duration::from_secs(5), async {
        let header = client.exactly(5).await;
        let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize;
        (header[0], client.exactly(length - 4).await)
    });
    reading.await.expect("a message")
}

/// The fields of an error or a notice.
#[track_caller]
fn field(body: &[u8], wanted: char) -> String {
    let text = String::from_utf8(body.to_vec()).unwrap();
    let found = text
        .split('\0')
        .find_map(|field| field.strip_prefix(wanted));
    found.unwrap_or_default().to_owned()
}

/// Reads an error in the clear, to the end of the connection.
async fn error_in_the_clear(tcp: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reading = timeout(Duration::from_secs(5), tcp.read_to_end(&mut bytes));
    reading.await.expect("an end").unwrap();
    assert_eq!(bytes[0], b'E', "{bytes:?}");
    bytes[5..].to_vec()
}

#[tokio::test]
async fn gss_is_refused_politely_and_tls_may_follow() {
    let mut stage = Stage::by_certificate().await;
    let mut tcp = stage.connect().await;
    tcp.write_all(GSS_REQUEST).await.unwrap();
    assert_eq!(tcp.read_u8().await.unwrap(), b'N');
    tcp.write_all(SSL_REQUEST).await.unwrap();
    assert_eq!(tcp.read_u8().await.unwrap(), b'S');
    let mut client = stage.world.begin_tls(tcp).await;
    client.write(startup(0, "user\0alice\0")).await;
    let packet = stage.upstream().await.packet().await;
    let text = String::from_utf8_lossy(&packet).into_owned();
    assert!(text.contains("user\0alice\0database\0alice\0enforcer.subject\0localhost\0"));
    assert!(stage.refused_nothing());
}

#[tokio::test]
async fn tls_may_start_at_once_with_alpn_and_not_without() {
    let mut stage = Stage::by_certificate().await;
    let mut client = stage.world.connect_with_alpn(b"postgresql").await;
    client.write(startup(0, "user\0alice\0")).await;
    stage.upstream().await.packet().await;

    let mut client = stage.world.connect().await;
    let (kind, error) = read_message(&mut client).await;
    assert_eq!((kind, &*field(&error, 'C')), (b'E', "08P01"));
    assert_eq!(stage.refused().await.code, "invalid_startup");
}

#[tokio::test]
async fn what_comes_in_the_clear_is_told_so() {
    for (bytes, code, recorded) in [
        (startup(0, "user\0alice\0"), "28000", "plain_postgres"),
        (
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            "08P01",
            "invalid_startup",
        ),
        (
            vec![0, 0, 0x27, 0x11, 0, 3, 0, 0],
            "08P01",
            "invalid_startup",
        ),
        (vec![0, 0, 0, 8, 0, 2, 0, 0], "08P01", "invalid_startup"),
        (
            [GSS_REQUEST, GSS_REQUEST].concat(),
            "08P01",
            "invalid_startup",
        ),
    ] {
        let stage = Stage::by_certificate().await;
        let mut tcp = stage.connect().await;
        tcp.write_all(&bytes).await.unwrap();
        if bytes.starts_with(GSS_REQUEST) {
            assert_eq!(tcp.read_u8().await.unwrap(), b'N');
        }
        let error = error_in_the_clear(&mut tcp).await;
        assert_eq!(field(&error, 'C'), code, "{bytes:?}");
        assert_eq!(field(&error, 'S'), "FATAL");
        assert_eq!(stage.refused().await.code, recorded);
    }
}

#[tokio::test]
async fn what_comes_within_tls_and_is_no_start_up_message_is_told_so() {
    for bytes in [
        SSL_REQUEST.to_vec(),
        startup(0, "database\0shop\0"),
        vec![0xff; 8],
    ] {
        let stage = Stage::by_certificate().await;
        let mut client = stage.client().await;
        client.write(&bytes).await;
        let (kind, error) = read_message(&mut client).await;
        assert_eq!((kind, &*field(&error, 'C')), (b'E', "08P01"));
        assert_eq!(client.rest().await, (Vec::new(), true));
        assert_eq!(stage.refused().await.code, "invalid_startup");
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_nobodys_business() {
    let stage = Stage::by_certificate().await;
    drop(stage.connect().await);
    drop(stage.client().await);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(stage.refused_nothing());
}

#[tokio::test]
async fn newer_versions_get_the_newest_that_is_spoken_and_longer_keys() {
    let mut stage = Stage::by_certificate().await;
    let mut client = stage.client().await;
    client
        .write(startup(99, "user\0alice\0_pq_.grease\x001\0"))
        .await;
    let (kind, body) = read_message(&mut client).await;
    assert_eq!(kind, b'v');
    assert_eq!(body, b"\0\x03\0\x02\0\0\0\x01_pq_.grease\0");
    let mut upstream = stage.upstream().await;
    let packet = upstream.packet().await;
    assert_eq!(packet[..4], [0, 3, 0, 2]);
    assert!(!packet.windows(4).any(|four| four == b"_pq_"));
    // An upstream of an older version.
    upstream.write(message(b'v', b"\0\x03\0\0\0\0\0\0")).await;
    upstream.let_in(&[1; 4]).await;
    assert_eq!(read_message(&mut client).await.0, b'R');
    let (kind, key) = read_message(&mut client).await;
    assert_eq!((kind, key.len()), (b'K', 4 + 32));
    assert_eq!(key[..4], UPSTREAM_PROCESS.to_be_bytes());
}

/// A CancelRequest with this key.
fn cancel(key: &[u8]) -> Vec<u8> {
    let length = u32::try_from(key.len() + 8).unwrap();
    [&length.to_be_bytes(), &[4, 210, 22, 46], key].concat()
}

#[tokio::test]
async fn a_key_cancels_at_its_own_upstream_in_the_clear_and_within_tls() {
    for minor in [0, 2] {
        let mut stage = Stage::by_certificate().await;
        let (_client, _upstream, key) = stage.flowing(minor).await;
        let (_other_client, _other_upstream, other_key) = stage.flowing(minor).await;
        assert_ne!(key, other_key);
        let wanted = match minor {
            0 => [&UPSTREAM_PROCESS.to_be_bytes()[..], &[1; 4]].concat(),
            _ => [&UPSTREAM_PROCESS.to_be_bytes()[..], &[1; 32]].concat(),
        };

        let mut tcp = stage.connect().await;
        tcp.write_all(&cancel(&key)).await.unwrap();
        let mut cancelling = stage.upstream().await;
        assert_eq!(
            cancelling.packet().await,
            [&[4, 210, 22, 46], &*wanted].concat()
        );
        drop(cancelling);
        assert_eq!(
            tcp.read_u8().await.unwrap_err().kind(),
            std::io::ErrorKind::UnexpectedEof
        );

        let mut client = stage.client().await;
        client.write(cancel(&key)).await;
        let mut cancelling = stage.upstream().await;
        assert_eq!(cancelling.packet().await[4..], *wanted);
        drop(cancelling);
        assert_eq!(client.rest().await, (Vec::new(), true));
        let found = |message: &ToWarden| matches!(message, ToWarden::Find { .. });
        stage.world.warden.hears(found).await;
        assert!(stage.refused_nothing());
    }
}

#[tokio::test]
async fn a_key_that_nobody_has_cancels_nothing() {
    let mut stage = Stage::by_certificate().await;
    let (client, _upstream, mut key) = stage.flowing(0).await;
    // The upstream's own key is none here.
    let upstreams = [&UPSTREAM_PROCESS.to_be_bytes()[..], &[1; 4]].concat();
    key[7] ^= 1;
    for unknown in [&upstreams, &key] {
        let mut tcp = stage.connect().await;
        tcp.write_all(&cancel(unknown)).await.unwrap();
        assert!(tcp.read_u8().await.is_err());
        assert_eq!(stage.refused().await.code, "unknown_cancel_key");
    }
    // A key ends with its connection.
    key[7] ^= 1;
    drop(client);
    let gone = async {
        loop {
            let mut tcp = stage.connect().await;
            tcp.write_all(&cancel(&key)).await.unwrap();
            assert!(tcp.read_u8().await.is_err());
            let heard = stage.world.warden.heard();
            if !heard.iter().any(|it| matches!(it, ToWarden::Find { .. })) {
                return;
            }
        }
    };
    timeout(Duration::from_secs(5), gone)
        .await
        .expect("the key is gone");
}

#[tokio::test]
async fn warnings_and_farewells_come_between_messages() {
    let mut stage = Stage::by_certificate().await;
    let (mut client, mut upstream, _) = stage.flowing(0).await;
    client.write(message(b'Q', b"select\0")).await;
    assert_eq!(upstream.exactly(12).await, message(b'Q', b"select\0"));
    // The whole of one row and the half of another, then the warning, then the rest and a third.
    let row = message(b'D', &[7; 100_000]);
    let half = row.len() / 2;
    upstream.write([&row[..], &row[..half]].concat()).await;
    assert_eq!(read_message(&mut client).await.1.len(), 100_000);
    let begun = client.exactly(half).await;
    stage.world.warden.warn(Duration::from_millis(4500)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    upstream.write([&row[half..], &row[..]].concat()).await;
    assert_eq!(
        [begun, client.exactly(row.len() - half).await].concat(),
        row
    );
    let (kind, notice) = read_message(&mut client).await;
    assert_eq!((kind, &*field(&notice, 'S')), (b'N', "WARNING"));
    assert_eq!(field(&notice, 'M'), "the session ends in 5 s (idle)");
    assert_eq!(read_message(&mut client).await.0, b'D');

    // Nothing comes, so it is said at once; and again after a reprieve.
    stage.world.warden.calm().await;
    stage.world.warden.warn(Duration::from_secs(3)).await;
    assert_eq!(read_message(&mut client).await.0, b'N');
    stage.world.warden.farewell(Duration::from_secs(5)).await;
    let (kind, error) = read_message(&mut client).await;
    assert_eq!((kind, &*field(&error, 'C')), (b'E', "57P01"));
    assert_eq!(client.rest().await, (Vec::new(), true));
    // The query still ran: it is cancelled.
    assert_eq!(upstream.exactly(5).await, b"X\0\0\0\x04");
    let mut cancelling = stage.upstream().await;
    assert_eq!(cancelling.packet().await[..4], [4, 210, 22, 46]);
}

#[tokio::test]
async fn a_message_that_never_ends_keeps_no_session_alive() {
    let mut stage = Stage::by_certificate().await;
    let (mut client, mut upstream, _) = stage.flowing(0).await;
    upstream.write(b"D\0\x10\0\0half").await;
    assert_eq!(client.exactly(9).await, b"D\0\x10\0\0half");
    stage
        .world
        .warden
        .farewell(Duration::from_millis(300))
        .await;
    let (rest, orderly) = client.rest().await;
    assert!(rest.is_empty() && !orderly);
    assert!(!upstream.rest().await.1);
}

#[tokio::test]
async fn a_query_that_runs_is_activity_and_what_the_upstream_says_is_not() {
    let mut stage = Stage::by_certificate().await;
    let (mut client, mut upstream, _) = stage.flowing(0).await;
    let touches = |stage: &Stage| {
        let heard = stage.world.warden.heard();
        heard
            .iter()
            .filter(|it| matches!(it, ToWarden::Touch { .. }))
            .count()
    };
    for _ in 0..3 {
        upstream.write(message(b'N', b"\0")).await;
        upstream
            .write(message(b'A', b"\0\0\0\x01channel\0text\0"))
            .await;
        assert_eq!(read_message(&mut client).await.0, b'N');
        assert_eq!(read_message(&mut client).await.0, b'A');
    }
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(touches(&stage), 0);
    client.write(message(b'Q', b"sleep\0")).await;
    tokio::time::sleep(Duration::from_millis(3500)).await;
    let running = touches(&stage);
    assert!(running >= 3, "{running}");
    upstream.write(message(b'Z', b"T")).await;
    assert_eq!(read_message(&mut client).await, (b'Z', b"T".to_vec()));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let ended = touches(&stage);
    tokio::time::sleep(Duration::from_millis(2000)).await;
    assert_eq!(touches(&stage), ended);
}

#[tokio::test]
async fn a_message_of_no_possible_length_ends_the_connection() {
    let mut stage = Stage::by_certificate().await;
    let (mut client, mut upstream, _) = stage.flowing(0).await;
    client.write(b"Q\0\0\0\x03").await;
    let (kind, error) = read_message(&mut client).await;
    assert_eq!((kind, &*field(&error, 'C')), (b'E', "08P01"));
    assert_eq!(stage.refused().await.code, "invalid_message");
    assert!(!upstream.rest().await.1);
}

#[tokio::test]
async fn who_leaves_takes_the_upstream_along_and_the_other_way() {
    let mut stage = Stage::by_certificate().await;
    let (mut client, mut upstream, _) = stage.flowing(0).await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(upstream.rest().await, (b"X\0\0\0\x04".to_vec(), true));

    let (mut client, mut upstream, _) = stage.flowing(0).await;
    let last = message(b'E', b"SFATAL\0\0");
    upstream.write(&last).await;
    drop(upstream);
    assert_eq!(client.rest().await, (last, true));

    // Not in the middle of a message.
    let (mut client, mut upstream, _) = stage.flowing(0).await;
    upstream.write(b"D\0\x10\0\0half").await;
    drop(upstream);
    assert!(!client.rest().await.1);
}

#[tokio::test]
async fn a_token_is_the_password_and_the_gateway_logs_in() {
    let mut stage = Stage::new(RequestIdentity::Token).await;
    let mut client = stage.client().await;
    client
        .write(startup(
            0,
            "user\0whoever\0database\0shop\0Enforcer.subject\0root\0",
        ))
        .await;
    assert_eq!(read_message(&mut client).await, (b'R', vec![0, 0, 0, 3]));
    let password = format!("{}\0", token("a", 60));
    client.write(message(b'p', password.as_bytes())).await;
    let mut upstream = stage.upstream().await;
    let packet = String::from_utf8(upstream.packet().await).unwrap();
    assert!(packet.contains("user\0app\0database\0shop\0enforcer.subject\0alice\0"));
    assert!(!packet.contains("root"), "{packet:?}");
    upstream.let_in(&[1; 4]).await;
    assert_eq!(read_message(&mut client).await, (b'R', vec![0; 4]));
}

#[tokio::test]
async fn without_a_token_there_is_no_way_in() {
    for (bytes, code) in [
        (message(b'p', b"\0"), "missing_token"),
        (message(b'p', b"no end"), "missing_token"),
        (message(b'Q', b"select 1\0"), "missing_token"),
        (message(b'p', b"nonsense\0"), "token_malformed"),
        (message(b'p', &[b'x'; 30_000]), "missing_token"),
        (
            message(b'p', &[&[b'x'; 30_000][..], &[0]].concat()),
            "token_too_long",
        ),
        (b"p\0\x01\0\0".to_vec(), "invalid_message"),
    ] {
        let stage = Stage::new(RequestIdentity::Token).await;
        let mut client = stage.client().await;
        client.write(startup(0, "user\0app\0")).await;
        assert_eq!(read_message(&mut client).await.0, b'R');
        client.write(&bytes).await;
        let (kind, error) = read_message(&mut client).await;
        assert_eq!(kind, b'E');
        assert!(field(&error, 'D').contains(code), "{code}: {error:?}");
        assert_eq!(stage.refused().await.code, code);
    }
}

#[tokio::test]
async fn the_upstreams_refusal_of_the_gateways_login_is_not_the_clients_to_know() {
    let mut stage = Stage::new(RequestIdentity::Token).await;
    let mut client = stage.client().await;
    client.write(startup(0, "user\0whoever\0")).await;
    read_message(&mut client).await;
    let password = format!("{}\0", token("a", 60));
    client.write(message(b'p', password.as_bytes())).await;
    let mut upstream = stage.upstream().await;
    upstream.packet().await;
    let refusal = b"SFATAL\0C28P01\0Mno password for app\0\0";
    upstream.write(message(b'E', refusal)).await;
    let (kind, error) = read_message(&mut client).await;
    assert_eq!((kind, &*field(&error, 'C')), (b'E', "08004"));
    assert!(!String::from_utf8_lossy(&error).contains("app"));
}

#[tokio::test]
async fn a_clients_own_login_passes_but_for_what_binds_it_to_one_channel() {
    let mut stage = Stage::by_certificate().await;
    let mut client = stage.client().await;
    client.write(startup(0, "user\0alice\0")).await;
    let mut upstream = stage.upstream().await;
    upstream.packet().await;
    let offer = b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    upstream.write(message(b'R', offer)).await;
    let (kind, offered) = read_message(&mut client).await;
    assert_eq!(
        (kind, &*offered),
        (b'R', &b"\0\0\0\x0aSCRAM-SHA-256\0\0"[..])
    );
    let answer = message(b'p', b"whatever");
    client.write(&answer).await;
    assert_eq!(upstream.exactly(answer.len()).await, answer);
    let refusal = message(b'E', b"SFATAL\0C28P01\0Mno\0\0");
    upstream.write(&refusal).await;
    assert_eq!(client.rest().await, (refusal, true));
}

#[tokio::test]
async fn who_does_not_read_is_not_read_for() {
    let mut stage = Stage::by_certificate().await;
    let (_client, mut upstream, _) = stage.flowing(0).await;
    // One row that is longer than whatever the sockets hold.
    upstream.write(b"D\x40\0\0\0").await;
    let block = vec![0; 1024 * 1024];
    let mut written = 0;
    let patience = Duration::from_millis(500);
    while let Ok(length) = timeout(patience, upstream.0.write(&block)).await {
        written += length.unwrap();
        assert!(
            written < 64 * block.len(),
            "nothing holds the upstream back"
        );
    }
}

#[tokio::test]
async fn the_end_of_the_session_resets_both_sides() {
    let mut stage = Stage::by_certificate().await;
    let (mut client, mut upstream, _) = stage.flowing(0).await;
    stage.world.warden.end().await;
    assert_eq!(client.rest().await, (Vec::new(), false));
    assert_eq!(upstream.rest().await, (Vec::new(), false));
}
