//! What came of an order, told to whoever gave it, to the log and to the audit.

use std::io;

use super::*;

impl Reloads {
    pub(super) fn finish(
        &mut self,
        candidate: Candidate,
        walk: &Walk,
        kept: io::Result<u64>,
        house: &mut House<'_>,
        now: Now,
    ) {
        let Candidate {
            order,
            text,
            changes,
            ..
        } = candidate;
        let Order::Apply { origin, reply, .. } = order else {
            return;
        };
        let impact = walk.impact();
        house.core.configuration = ConfigurationStatus {
            path: self.path.clone(),
            sha256: digest(&text),
            applied_at: Some(now.wall),
            ..ConfigurationStatus::default()
        };
        house.core.configuration.note_kept(kept);

        let status = &house.core.configuration;
        let mut record = Record::new(now.wall, Event::ConfigApplied).because(origin.as_str());
        let who = origin.uid().map(|uid| format!("user {uid}: "));
        record.detail = Some(format!(
            "{}{}; of {} live sessions {} cut, {} shortened, {} lengthened",
            who.unwrap_or_default(),
            if changes.is_empty() {
                "files read again".to_owned()
            } else {
                changes.join("; ")
            },
            impact.sessions,
            impact.cut,
            impact.shortened,
            impact.lengthened,
        ));
        tracing::info!(
            origin = origin.as_str(),
            version = status.version,
            cut = impact.cut,
            shortened = impact.shortened,
            lengthened = impact.lengthened,
            "the configuration is applied"
        );
        let outcome = ReloadOutcome {
            version: status.version,
            changes,
            impact,
            warnings: status
                .history_error
                .iter()
                .map(|error| format!("it is not in the history: {error}"))
                .collect(),
        };
        house.core.audit.write(record);
        if let Some(reply) = reply {
            let _ = reply.send(Ok(outcome));
        }
        tell_ready();
    }

    /// Tells what a configuration would do.
    pub(super) fn tell(&self, candidate: Candidate, walk: Walk, locks_out: Option<ReloadRefused>) {
        let Candidate {
            order,
            config,
            text,
            path,
            changes,
            ..
        } = candidate;
        let Order::Simulate { reply, .. } = order else {
            return;
        };
        let impact = walk.impact();
        let (sessions, omitted) = walk.into_list();
        let reloadable = config.check_reloadable(&self.config, &text, &path);
        let needs_restart = reloadable
            .err()
            .map(|error| ReloadRefused::new(RefusalCode::NeedsRestart, error.to_string()));
        let _ = reply.send(Ok(SimulateOutcome {
            changes,
            impact,
            sessions,
            omitted,
            refusals: needs_restart.into_iter().chain(locks_out).collect(),
        }));
    }

    /// Nothing changes, and everybody hears why.
    pub(super) fn refuse(
        &mut self,
        order: Order,
        text: Option<String>,
        refused: ReloadRefused,
        house: &mut House<'_>,
        now: Now,
    ) {
        match order {
            Order::Simulate { reply, .. } => drop(reply.send(Err(refused))),
            Order::Apply { origin, reply, .. } => {
                tracing::error!(
                    origin = origin.as_str(),
                    "the configuration is not applied: {refused}"
                );
                let mut record =
                    Record::new(now.wall, Event::ConfigRefused).because(refused.code.as_str());
                let who = origin
                    .uid()
                    .map_or_else(|| origin.as_str().to_owned(), |uid| format!("user {uid}"));
                record.detail = Some(format!("{who}: {refused}"));
                house.core.audit.write(record);
                house.core.configuration.reloading = false;
                house.core.configuration.refused = Some(RefusedConfiguration {
                    at: now.wall,
                    refused: refused.clone(),
                });
                if text.is_some() {
                    self.watching.note_refused();
                    self.watch_again();
                }
                if let Some(reply) = reply {
                    let _ = reply.send(Err(refused));
                }
                tell_ready();
            }
        }
    }
}

impl ConfigurationStatus {
    pub(super) fn note_kept(&mut self, kept: io::Result<u64>) {
        match kept {
            Ok(version) => self.version = Some(version),
            Err(error) => {
                let error = error.to_string();
                tracing::error!("the configuration is not kept in the history: {error}");
                self.history_error = Some(error);
            }
        }
    }
}
