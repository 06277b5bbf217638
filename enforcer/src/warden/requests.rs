//! What gateways ask for. Every message is checked: the socket is known, of the right kind and
//! unbound; the session and the policy exist; the limits are the policy's.

use std::net::SocketAddr;

use enforcer_abi as abi;

use super::{
    book::{Leg, Live},
    concurrency::client_address,
    core::{Core, Due},
    ending::describe,
    gateways::GatewayId,
    pauses::Pauses,
    publishing::kernel_session,
};
use crate::{
    audit::{Event, Record},
    channel::{BoundRole, Refusal, RefusedRequest, SessionUsage, SessionView, ToGateway, ToWarden},
    clock::{BootInstant, Now},
    kernel::maps::WriteError,
    policy::{ActivityKind, Terms},
    session::{Credential, EndReason, Phase, Refused, Session, SessionId},
};

/// What the gateway knows of a connection beside its socket, for the audit log.
#[derive(Debug, Default)]
pub(super) struct Told {
    announced_client: Option<SocketAddr>,
    target: Option<String>,
}

impl Told {
    /// A proxy has announced its client.
    pub(super) fn by(announced_client: Option<SocketAddr>) -> Self {
        Self {
            announced_client,
            target: None,
        }
    }
}

impl Core {
    /// A gateway sent a message.
    pub fn on_message(&mut self, from: GatewayId, message: ToWarden, now: Now) {
        let (request, answer) = match message {
            ToWarden::Open {
                request,
                cookie,
                credential,
                policies,
                announced_client,
            } => (
                request,
                self.open(cookie, &credential, &policies, announced_client, now)
                    .map(Answer::Session),
            ),
            ToWarden::Find {
                request,
                cookie,
                credential,
                kinship,
                announced_client,
            } => (
                request,
                self.find(cookie, &credential, kinship, announced_client, now)
                    .map(|(session, usage)| Answer::Found(session, usage)),
            ),
            ToWarden::Renew {
                request,
                session,
                credential,
            } => (
                request,
                self.renew(session, &credential, now).map(Answer::Session),
            ),
            ToWarden::Bind {
                request,
                cookie,
                session,
                role,
                target,
            } => {
                let told = Told {
                    target,
                    ..Told::default()
                };
                let bound = self.bind(cookie, session, role, told, now);
                (request, bound.map(|()| Answer::Bound))
            }
            ToWarden::Touch { session, at } => return self.touch(session, at, now),
            ToWarden::End { session, cause } => {
                self.dismiss(&[session], cause.into(), None, now);
                return;
            }
            ToWarden::IssuerKeys {
                issuer,
                keys,
                as_of,
            } => return self.on_issuer_keys(&issuer, &keys, as_of, now),
            ToWarden::RevokedCertificates { anew, certificates } => {
                return self.on_revoked_certificates(anew, certificates, now);
            }
            ToWarden::RefusedRequest(refused) => {
                return self.record_request(Event::SessionRefused, refused, now);
            }
            ToWarden::ObservedRequest(observed) => {
                return self.record_request(Event::RequestObserved, observed, now);
            }
            ToWarden::Exported {
                exporter,
                batch,
                outcome,
            } => return self.exports.heard(&exporter, batch, outcome),
            ToWarden::Counted(figures) => return self.audit.count(*figures),
            ToWarden::CanaryReady { request, cookie } => (
                request,
                self.open_canary(from, cookie, now).map(Answer::Session),
            ),
            ToWarden::Delivered {
                webhook,
                id,
                failure,
            } => return self.on_delivered(&webhook, &id, failure.as_deref(), now),
            ToWarden::CanaryReport(report) => return self.on_canary_report(from, &report, now),
            // What the supervisor waits for, not the core.
            ToWarden::Ready
            | ToWarden::CannotStart { .. }
            | ToWarden::Listeners { .. }
            | ToWarden::Scraped { .. } => return,
        };
        self.gateways.send(
            from,
            match answer {
                Ok(Answer::Session(session)) => ToGateway::Opened { request, session },
                Ok(Answer::Found(session, usage)) => ToGateway::Found {
                    request,
                    session,
                    usage,
                },
                Ok(Answer::Bound) => ToGateway::Bound { request },
                Err(refusal) => ToGateway::Refused { request, refusal },
            },
        );
    }

    /// Opens the credential's session, or joins the live one, and binds the client's socket.
    pub(super) fn open(
        &mut self,
        cookie: u64,
        credential: &Credential,
        policies: &[String],
        announced_client: Option<SocketAddr>,
        now: Now,
    ) -> Result<SessionView, Refusal> {
        if self.retired_issuers.contains(&credential.principal.issuer) {
            return Err(Refusal::SessionEnded(EndReason::Policy));
        }
        let terms = Terms::of(policies, &self.policies, now.wall).ok_or(Refusal::UnknownPolicy)?;
        if let Some(reason) = self.barred(credential, now) {
            return Err(Refusal::SessionEnded(reason));
        }
        let id = match self.renew_found(cookie, credential, announced_client, now)? {
            Some(id) => {
                self.join(id, &terms, now)?;
                id
            }
            None => {
                // The socket is looked at before anything is made for it.
                let connection = self.bindable(cookie, BoundRole::Client, None, now)?;
                let connection = connection.ok_or(Refusal::UnbindableSocket)?;
                let address = client_address(&connection, announced_client);
                let id = self.new_id()?;
                let session = Session::open(id, credential, &terms, Some(address), now);
                let session = session.map_err(refusal)?;
                self.make_room(&session, now)?;
                self.insert(session, now)?;
                id
            }
        };
        self.bind(
            cookie,
            id,
            BoundRole::Client,
            Told::by(announced_client),
            now,
        )?;
        let live = self.book.get(id).ok_or(Refusal::Unavailable)?;
        Ok(self.view(live))
    }

    pub(super) fn insert(&mut self, session: Session, now: Now) -> Result<(), Refusal> {
        let id = session.id;
        let value = kernel_session(&session, self.policy_id(&session));
        self.maps
            .add_session(id.as_u64(), value)
            .map_err(|error| self.write_refusal(error))?;
        self.book.insert(Live {
            session,
            opened_at: now.wall,
            legs: std::collections::BTreeMap::new(),
            observed: false,
            dismissal: None,
            warned_for: None,
            pauses: Pauses::new(now.boot, now.boot),
        });
        self.reschedule(id, now);
        self.save(id, now);
        let mut record = self.session_record(Event::SessionOpened, id, now);
        record.deadline = self
            .book
            .get(id)
            .map(|live| live.session.wall_limit(live.session.deadline().at, now));
        self.audit.write(record);
        Ok(())
    }

    /// Binds a socket to a session. A client's socket that is bound to it already stays so.
    pub(super) fn bind(
        &mut self,
        cookie: u64,
        id: SessionId,
        role: BoundRole,
        told: Told,
        now: Now,
    ) -> Result<(), Refusal> {
        if self.book.get(id).is_none() {
            return Err(Refusal::SessionEnded(EndReason::Unknown));
        }
        let Some(connection) = self.bindable(cookie, role, Some(id), now)? else {
            return Ok(());
        };
        if role == BoundRole::Client {
            let client = client_address(&connection, told.announced_client);
            self.admit_connection(id, client, now)?;
        }
        let role_code = match role {
            BoundRole::Client => abi::Role::Client,
            BoundRole::Upstream => abi::Role::Upstream,
        }
        .code();
        let binding = abi::Binding {
            session_id: id.as_u64(),
            role: role_code,
            padding: 0,
        };
        self.maps
            .bind(cookie, binding)
            .map_err(|error| self.write_refusal(error))?;
        self.unbound.remove(&cookie);
        self.queue.remove(Due::PreAuthentication(cookie));
        if self
            .maps
            .connection(cookie)
            .is_none_or(|now| now.closed_at_ns != 0)
        {
            // It closed meanwhile: nothing will remove the binding.
            self.maps.unbind(cookie);
            return Err(Refusal::UnbindableSocket);
        }
        let connection = abi::Connection {
            session_id: id.as_u64(),
            role: role_code,
            ..connection
        };
        if let Some(live) = self.book.get_mut(id) {
            let leg = Leg {
                role,
                connection,
                proxied_client: told.announced_client,
            };
            live.legs.insert(cookie, leg);
            self.owners.insert(cookie, id);
        }
        let mut record = self.session_record(Event::ConnectionOpened, id, now);
        describe(&mut record, cookie, &connection);
        record.proxied_client = told.announced_client;
        record.target = told.target;
        record.idle_ms = self.idle_ms(id, now);
        self.audit.write(record);
        Ok(())
    }

    /// How long a session has been without activity.
    fn idle_ms(&self, id: SessionId, now: Now) -> Option<u64> {
        let session = &self.book.get(id)?.session;
        let payload = self.last_payload(id);
        let counts = session.limits.activity == ActivityKind::Payload;
        let last = session.last_activity();
        let last = last.max(payload.filter(|_| counts).unwrap_or(last));
        let idle = now.boot.saturating_duration_since(last);
        u64::try_from(idle.as_millis()).ok()
    }

    /// The connection of a socket that may be bound to the session; `None` if it is bound to it
    /// already.
    pub(super) fn bindable(
        &mut self,
        cookie: u64,
        role: BoundRole,
        id: Option<SessionId>,
        now: Now,
    ) -> Result<Option<abi::Connection>, Refusal> {
        let Some(connection) = self.maps.connection(cookie) else {
            let full = self.maps.stats().connections_full > self.losses.connections_full
                || self.unbound.contains_key(&cookie);
            return Err(if full {
                self.capacity()
            } else {
                Refusal::UnbindableSocket
            });
        };
        if let Some(binding) = self.maps.binding(cookie) {
            let same = id.is_some_and(|id| binding.session_id == id.as_u64())
                && role == BoundRole::Client
                && binding.role == abi::Role::Client.code();
            return if same {
                Ok(None)
            } else {
                Err(Refusal::AnotherSession)
            };
        }
        let fitting = match role {
            BoundRole::Client => abi::Role::Client,
            BoundRole::Upstream => abi::Role::Pooled,
        };
        let open = connection.closed_at_ns == 0 && connection.session_id == 0;
        if !open || connection.role != fitting.code() {
            return Err(Refusal::UnbindableSocket);
        }
        let accepted_at = BootInstant::from_nanos(connection.opened_at_ns);
        let limit = accepted_at.saturating_add(self.pre_authentication_timeout);
        if role == BoundRole::Client && now.boot >= limit {
            return Err(Refusal::UnbindableSocket);
        }
        Ok(Some(connection))
    }

    /// The client did something. What a gateway says of the future is not believed.
    fn touch(&mut self, id: SessionId, at: BootInstant, now: Now) {
        let Some(live) = self.book.get_mut(id) else {
            return;
        };
        let before = live.session.last_activity();
        let deadline = live.session.deadline();
        let announced = live.session.phase() != Phase::Alive
            && live.session.limit(None).reason == EndReason::Idle;
        live.session.touch(at.min(now.boot));
        if live.session.last_activity() == before {
            return;
        }
        live.pauses.note(before, live.session.last_activity());
        if live.session.limits.idle_timeout.is_some()
            && let Err(reason) = self.publish_limits(id, deadline.reason)
        {
            self.end(id, reason, now);
            return;
        }
        // Otherwise the alarm stays where it is: it rings too early and is set again then.
        if announced && let Some(live) = self.book.get(id) {
            let session = self.view(live);
            self.gateways.broadcast(ToGateway::Changed { session });
            self.reschedule(id, now);
        }
        self.store.touch(id, now.wall);
        self.record_pauses_in_time(id, now);
    }

    fn record_request(&self, event: Event, refused: RefusedRequest, now: Now) {
        let RefusedRequest {
            code,
            detail,
            client,
            listener,
            cookie,
            principal,
        } = refused;
        let mut record = Record::new(now.wall, event).because(code);
        if let Some(principal) = principal {
            record = record.by(&principal);
        }
        record.detail = Some(detail);
        record.client = Some(SocketAddr::new(client.ip().to_canonical(), client.port()));
        record.listener = Some(listener);
        record.cookie = Some(cookie);
        self.audit.write(record);
    }

    /// A map said no.
    fn write_refusal(&mut self, error: WriteError) -> Refusal {
        match error {
            WriteError::Full => self.capacity(),
            WriteError::Exists => Refusal::UnbindableSocket,
            WriteError::Map(source) => {
                tracing::error!("a map cannot be written: {source}");
                Refusal::Unavailable
            }
        }
    }

    fn capacity(&mut self) -> Refusal {
        tracing::warn!("a map is full: raise daemon.max_sessions or daemon.max_connections");
        Refusal::Capacity
    }

    pub(super) fn new_id(&self) -> Result<SessionId, Refusal> {
        loop {
            let mut bytes = [0; 8];
            rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
                .map_err(|_| Refusal::Unavailable)?;
            match SessionId::from_u64(u64::from_ne_bytes(bytes)) {
                Some(id) if self.maps.session(id.as_u64()).is_none() => return Ok(id),
                _ => {}
            }
        }
    }
}

enum Answer {
    Session(SessionView),
    Found(SessionView, SessionUsage),
    Bound,
}

pub(super) fn refusal(refused: Refused) -> Refusal {
    match refused {
        Refused::TooOld => Refusal::SessionTooOld,
        Refused::Expired => Refusal::SessionEnded(EndReason::Token),
        Refused::OutsideHours => Refusal::OutsideHours,
        Refused::Stranger => Refusal::AnotherSession,
    }
}
