//! The daemon's part in configurations: it reloads, applies, confirms and goes back, one order after the other, and says so.

use std::time::Duration;

use patronus_api::{
    ConfigCommand, ConfigCommandRequest, ConfigCommandResponse, ConfigFate, ConfigOrigin, GradeView,
};
use patronus_config::load::TEXT_LEN_MAX;
use patronus_config::{Config, ConfigErrors, at_next_start};

use super::Daemon;
use crate::api::Refused;
use crate::config_book::{ConfigCall, changes_view, faulty, missing};
use crate::config_store::{Choice, Now, Order, StoreError};
use crate::in_force::base_of;

/// Less than anybody needs to see what an order did.
const CONFIRM_MIN_S: u32 = 5;
/// A day.
const CONFIRM_MAX_S: u32 = 86_400;

/// A text that is to be put in force.
struct Candidate {
    text: String,
    config: Config,
    origin: ConfigOrigin,
    source: String,
    /// The file on disk, as it was when the order came.
    file: Option<String>,
}

impl Daemon {
    /// SIGHUP: the file counts where it was edited since the last order; manifests are read in any case.
    pub(super) async fn reload(&mut self) {
        if let Err(errors) = self.reload_file().await {
            tracing::error!("reload refused, the old configuration stays in force:\n{errors}");
            let all = errors.to_string();
            let first = all.lines().next().unwrap_or_default();
            let told = format!("reload refused, the old configuration stays in force: {first}");
            self.tell(GradeView::Bad, told);
        }
    }

    async fn reload_file(&mut self) -> Result<(), ConfigErrors> {
        let (now, file) = (Now::read(), self.book.read_file()?);
        let chosen = self.book.with_store(|it| it.choose(&file, &now));
        let path = self.config_path.display().to_string();
        let text = match chosen {
            Choice::File => file.clone(),
            Choice::Pending(number) => {
                tracing::warn!(
                    "configuration {number} waits for its confirmation: {path} is not taken"
                );
                self.book.running().0
            }
            Choice::Entry(number) => {
                tracing::warn!(
                    "configuration {number} stays in force: {path} was not touched since it was put there; \
                     `patronus config apply` takes the file"
                );
                self.book.running().0
            }
        };
        let new = patronus_config::load_text(&text, &path, &base_of(&self.config_path))?;
        let waits = at_next_start(&self.started, &new);
        if let Err(error) = self.take(new).await {
            tracing::error!("reload: {error:#}");
            self.tell(GradeView::Bad, format!("reload: {error:#}"));
            return Ok(());
        }
        if chosen == Choice::File {
            let order = Order {
                text: &text,
                origin: ConfigOrigin::Reload,
                uid: None,
                source: path,
            };
            let recorded = self
                .book
                .with_store(|it| it.record(&order, Some(&file), &now));
            if let Err(error) = recorded {
                tracing::warn!("the configuration is in force and not recorded: {error}");
            }
        }
        self.book.set_running(text, waits);
        let peers = self.registry.peers().len();
        tracing::info!(peers, "reloaded");
        self.tell(
            GradeView::Good,
            format!("configuration reloaded; peers: {peers}"),
        );
        Ok(())
    }

    /// Policy and configuration change together; whatever of it fails, policy waits for nothing.
    async fn take(&mut self, new: Config) -> anyhow::Result<()> {
        self.reload_policy(&new).await;
        if let Err(error) = self.apply(new).await {
            self.registry
                .set_pods(crate::in_force::pods_of(&self.config, &self.in_force));
            self.publish();
            return Err(error);
        }
        self.configure_prefilter().await;
        Ok(())
    }

    /// Carries out what the API was asked for.
    pub(super) async fn take_config_call(&mut self, (request, uid, reply): ConfigCall) {
        let answer = match request.command {
            ConfigCommand::Apply => self.order_apply(&request, uid).await,
            ConfigCommand::Confirm => self.order_confirm(&request),
            ConfigCommand::Rollback => self.order_rollback(&request, uid).await,
        };
        // The client may have left; what was done is in the events.
        let _ = reply.send(answer);
    }

    /// Goes back where nobody confirmed. To be called about once a second.
    pub(super) async fn check_deadline(&mut self) {
        if !self.book.with_store(|it| it.has_pending()) {
            return;
        }
        let now = Now::read();
        if self.book.with_store(|it| it.is_overdue(&now)) {
            let answer = self.go_back("nobody confirmed it in time", &now).await;
            if let Err(refused) = answer {
                self.say(GradeView::Bad, refused.error.error);
            }
        }
    }

    async fn order_apply(
        &mut self,
        request: &ConfigCommandRequest,
        uid: Option<u32>,
    ) -> Result<ConfigCommandResponse, Refused> {
        let file = self.book.read_file();
        let path = self.config_path.display().to_string();
        let (text, source) = match &request.text {
            Some(text) => (
                text.clone(),
                request.source.clone().unwrap_or_else(|| "API".to_owned()),
            ),
            None => match &file {
                Ok(text) => (text.clone(), path),
                Err(errors) => return Err(faulty("text", errors)),
            },
        };
        if text.len() as u64 > TEXT_LEN_MAX {
            let error = format!("longer than {} MiB", TEXT_LEN_MAX >> 20);
            return Err(Refused::field("text", error, "send a configuration file"));
        }
        let source: String = source
            .chars()
            .filter(|it| !it.is_control())
            .take(256)
            .collect();
        let config = patronus_config::load_text(&text, &source, &base_of(&self.config_path));
        let candidate = Candidate {
            config: config.map_err(|errors| faulty("text", &errors))?,
            text,
            origin: ConfigOrigin::Apply,
            source,
            file: file.ok(),
        };
        self.put_in_force(candidate, request, uid).await
    }

    async fn order_rollback(
        &mut self,
        request: &ConfigCommandRequest,
        uid: Option<u32>,
    ) -> Result<ConfigCommandResponse, Refused> {
        let now = Now::read();
        let pending = self.book.with_store(|it| it.pending(&now));
        if let Some(pending) = pending {
            if request.number.is_some_and(|it| it != pending.previous) {
                return Err(waits(pending.number));
            }
            if request.dry_run {
                return self.plan_back(pending.previous);
            }
            return self.go_back("an operator took it back", &now).await;
        }
        let before = self.book.with_store(|it| it.before_running());
        let number = request.number.or(before).ok_or_else(|| {
            let fix = "name an entry: `patronus config history` lists them";
            Refused::conflict("number", "there is no configuration before this one", fix)
        })?;
        let text = self.book.with_store(|it| it.text(number));
        let text = text.map_err(|error| missing(&error))?;
        let source = format!("entry {number}");
        let config = patronus_config::load_text(&text, &source, &base_of(&self.config_path));
        let candidate = Candidate {
            config: config.map_err(|errors| faulty("number", &errors))?,
            text,
            origin: ConfigOrigin::Rollback,
            source,
            file: self.book.read_file().ok(),
        };
        self.put_in_force(candidate, request, uid).await
    }

    /// Says what a candidate changes; and does it, unless only that was asked for.
    async fn put_in_force(
        &mut self,
        candidate: Candidate,
        request: &ConfigCommandRequest,
        uid: Option<u32>,
    ) -> Result<ConfigCommandResponse, Refused> {
        let now = Now::read();
        if let Some(pending) = self.book.with_store(|it| it.pending(&now)) {
            return Err(waits(pending.number));
        }
        let patience = patience_of(request.confirm_s)?;
        let (running, running_number) = self.book.running();
        let waiting = at_next_start(&self.started, &candidate.config);
        let mut answer = ConfigCommandResponse {
            changes: changes_view(&running, &candidate.text),
            at_next_start: waiting.iter().map(|&it| it.to_owned()).collect(),
            number: running_number,
            ..ConfigCommandResponse::default()
        };
        let is_same = running == candidate.text;
        if is_same && patience.is_some() {
            let text = "the text is the one in force: there is nothing to confirm";
            answer.warnings.push(text.to_owned());
        }
        if request.dry_run {
            answer.text = format!("{} would be applied", candidate.source);
            return Ok(answer);
        }
        let order = Order {
            text: &candidate.text,
            origin: candidate.origin,
            uid,
            source: candidate.source.clone(),
        };
        let file = candidate.file.as_deref();
        let patience = patience.filter(|_| !is_same);
        if let Some(patience) = patience {
            let patience_ms = patience.as_millis() as u64;
            let begun = self
                .book
                .with_store(|it| it.begin(&order, file, patience_ms, &now));
            begun.map_err(|error| no_promise(&error))?;
        }
        if let Err(error) = self.take(candidate.config).await {
            let why = format!("{} cannot be applied: {error:#}", candidate.source);
            return Err(self.undo(&why, patience.is_some()).await);
        }
        self.book.set_running(candidate.text.clone(), waiting);
        let by = uid.map_or(String::new(), |uid| format!(" by user {uid}"));
        match patience {
            Some(patience) => {
                answer.pending = self.book.with_store(|it| it.pending(&now));
                answer.number = answer.pending.as_ref().map(|it| it.number);
                answer.text = format!(
                    "configuration {} from {} is in force{by} and waits {} s for `patronus config confirm`",
                    answer.number.unwrap_or_default(),
                    candidate.source,
                    patience.as_secs()
                );
                self.say(GradeView::Warning, answer.text.clone());
            }
            None => {
                let recorded = self.book.with_store(|it| it.record(&order, file, &now));
                answer.number = recorded.as_ref().ok().copied();
                answer.text = match &recorded {
                    Ok(number) => format!(
                        "configuration {number} from {} is in force{by}",
                        candidate.source
                    ),
                    Err(error) => {
                        let text = format!(
                            "it is not recorded, so the next start takes {}: {error}",
                            self.config_path.display()
                        );
                        answer.warnings.push(text);
                        format!("{} is in force{by}, and not recorded", candidate.source)
                    }
                };
                if recorded.is_ok() {
                    answer.warnings.extend(self.book.write_file());
                }
                self.say(GradeView::Info, answer.text.clone());
            }
        }
        answer.done = true;
        Ok(answer)
    }

    fn order_confirm(
        &mut self,
        request: &ConfigCommandRequest,
    ) -> Result<ConfigCommandResponse, Refused> {
        let now = Now::read();
        let pending = self.book.with_store(|it| it.pending(&now)).ok_or_else(|| {
            let fix = "`patronus config history` says what became of it";
            Refused::conflict("command", "nothing waits for its confirmation", fix)
        })?;
        let mut answer = ConfigCommandResponse {
            number: Some(pending.number),
            text: format!("configuration {} would be kept", pending.number),
            ..ConfigCommandResponse::default()
        };
        if request.dry_run {
            answer.pending = Some(pending);
            return Ok(answer);
        }
        self.book.with_store(|it| it.confirm()).map_err(|error| {
            let fix = "make room, or make it writable, and confirm again before the time is over";
            Refused::conflict("command", format!("cannot record it: {error}"), fix)
        })?;
        answer.done = true;
        answer.text = format!("configuration {} is confirmed", pending.number);
        answer.warnings.extend(self.book.write_file());
        self.say(GradeView::Good, answer.text.clone());
        Ok(answer)
    }

    fn plan_back(&self, previous: u64) -> Result<ConfigCommandResponse, Refused> {
        let text = self.book.with_store(|it| it.text(previous));
        let text = text.map_err(|error| missing(&error))?;
        Ok(ConfigCommandResponse {
            text: format!("configuration {previous} would come back"),
            changes: changes_view(&self.book.running().0, &text),
            number: Some(previous),
            ..ConfigCommandResponse::default()
        })
    }

    /// From what waits for its confirmation to what was before.
    async fn go_back(&mut self, why: &str, now: &Now) -> Result<ConfigCommandResponse, Refused> {
        let Some(pending) = self.book.with_store(|it| it.pending(now)) else {
            return Ok(ConfigCommandResponse::default());
        };
        let number = pending.number;
        let mut answer = self.plan_back(pending.previous).unwrap_or_default();
        // First, so that what follows cannot keep it from ending.
        let reverted = self.book.with_store(|it| it.revert(ConfigFate::Reverted));
        if let Err(error) = reverted {
            answer.warnings.push(format!("not recorded: {error}"));
        }
        let cannot = |what: String| {
            let fix = "`patronus config history` lists what else there is";
            let error = format!("configuration {number} is still in force: {what}");
            Refused::conflict("number", error, fix)
        };
        let text = self.book.with_store(|it| it.text(pending.previous));
        let text = text.map_err(|error| cannot(error.to_string()))?;
        let base = base_of(&self.config_path);
        let config =
            patronus_config::load_text(&text, &format!("entry {}", pending.previous), &base);
        let config = config.map_err(|errors| cannot(errors.to_string()))?;
        let waiting = at_next_start(&self.started, &config);
        self.take(config).await.map_err(|error| {
            let error = format!(
                "configuration {} is back in part only: {error:#}",
                pending.previous
            );
            Refused::conflict("number", error, "send SIGHUP, or start the gateway anew")
        })?;
        self.book.set_running(text, waiting);
        answer.done = true;
        answer.number = Some(pending.previous);
        answer.text = format!(
            "configuration {} is back, {number} is not in force: {why}",
            pending.previous
        );
        self.say(GradeView::Warning, answer.text.clone());
        Ok(answer)
    }

    /// A candidate failed on the way: what was before is put in force again.
    async fn undo(&mut self, why: &str, was_promised: bool) -> Refused {
        if was_promised {
            let _ = self.book.with_store(|it| it.revert(ConfigFate::Failed));
        }
        let (text, _) = self.book.running();
        let path = self.config_path.display().to_string();
        let back = match patronus_config::load_text(&text, &path, &base_of(&self.config_path)) {
            Ok(config) => self
                .take(config)
                .await
                .map_err(|error| format!("{error:#}")),
            Err(errors) => Err(errors.to_string()),
        };
        let (grade, fix) = match back {
            Ok(()) => (
                GradeView::Warning,
                "what was before is in force; correct it".to_owned(),
            ),
            Err(error) => (
                GradeView::Bad,
                format!("what was before came back in part only: {error}"),
            ),
        };
        self.say(grade, why.to_owned());
        Refused::conflict("text", why, fix)
    }

    /// Into the log and the events.
    pub(super) fn say(&self, grade: GradeView, text: String) {
        match grade {
            GradeView::Good | GradeView::Info => tracing::info!("{text}"),
            GradeView::Warning => tracing::warn!("{text}"),
            GradeView::Bad => tracing::error!("{text}"),
        }
        self.tell(grade, text);
    }
}

fn waits(number: u64) -> Refused {
    let error = format!("configuration {number} waits for its confirmation");
    let fix = "`patronus config confirm` keeps it, `patronus config rollback` takes it back";
    Refused::conflict("command", error, fix)
}

fn no_promise(error: &StoreError) -> Refused {
    let error = format!("the deadline cannot be recorded, and would not survive a crash: {error}");
    let fix =
        "make room, or make it writable; nothing was changed. Without --confirm it can be applied";
    Refused::conflict("confirm_s", error, fix)
}

fn patience_of(seconds: Option<u32>) -> Result<Option<Duration>, Refused> {
    match seconds {
        None => Ok(None),
        Some(seconds) if (CONFIRM_MIN_S..=CONFIRM_MAX_S).contains(&seconds) => {
            Ok(Some(Duration::from_secs(seconds.into())))
        }
        Some(seconds) => {
            let fix = format!("write {CONFIRM_MIN_S} to {CONFIRM_MAX_S}");
            let error = format!("{seconds} s is out of range");
            Err(Refused::field("confirm_s", error, fix))
        }
    }
}
