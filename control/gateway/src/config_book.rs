//! The configuration in force and its history, as the daemon and the local API share them, behind a mutex that nothing on the
//! packet path touches; and the door by which the API hands orders to the daemon, which carries them out one after the other.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use patronus_api::{
    ConfigChangeView, ConfigCommandRequest, ConfigCommandResponse, ConfigFate, ConfigFileState,
    ConfigOrigin, ConfigResponse, ConfigTextResponse, GradeView,
};
use patronus_config::{Config, ConfigErrors};
use tokio::sync::{mpsc, oneshot};

use crate::api::Refused;
use crate::config_store::{self, Choice, ConfigStore, Now, Order, StoreError};
use crate::in_force::base_of;
use crate::recorder::state_dir_of;

/// An order, the user's number, and where the answer goes.
pub type ConfigCall = (
    ConfigCommandRequest,
    Option<u32>,
    oneshot::Sender<Result<ConfigCommandResponse, Refused>>,
);

/// What is in force and what was.
#[derive(Debug)]
pub struct ConfigBook {
    /// The configuration file.
    path: PathBuf,
    calls: mpsc::Sender<ConfigCall>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: ConfigStore,
    /// The text in force.
    running: String,
    at_next_start: Vec<&'static str>,
    /// Until the daemon takes it.
    calls: Option<mpsc::Receiver<ConfigCall>>,
}

/// What a gateway starts with.
#[derive(Debug)]
pub struct Begun {
    /// The configuration.
    pub config: Config,
    /// Where it came from.
    pub book: Arc<ConfigBook>,
    /// What the operator has to know about it.
    pub notes: Vec<(GradeView, String)>,
}

/// Reads the file and decides by the history whether it or another text is started.
///
/// # Errors
/// What is wrong with the file.
pub fn begin(path: &Path, now: &Now) -> Result<Begun, ConfigErrors> {
    let origin = path.to_string_lossy();
    let base = base_of(path);
    let file = patronus_config::load::read_text(path, &origin)?;
    let config = patronus_config::load_text(&file, &origin, &base)?;
    let name = format!("config-{}", config.site.interface);
    let mut store = ConfigStore::open(&state_dir_of(&config, &base).join(name));
    let mut notes = Vec::new();
    if let Some(problem) = store.problem() {
        let text = format!("configurations are not recorded: {problem}");
        notes.push((GradeView::Warning, text));
    }
    if store.is_overdue(now) {
        notes.push((GradeView::Warning, reverted_at_start(&mut store, now)));
    }
    let (calls_in, calls) = mpsc::channel(1);
    let mut begun = Begun {
        config,
        book: Arc::new(ConfigBook {
            path: path.to_owned(),
            calls: calls_in,
            inner: Mutex::new(Inner {
                store,
                running: String::new(),
                at_next_start: Vec::new(),
                calls: Some(calls),
            }),
        }),
        notes,
    };
    begun.choose(file, now);
    Ok(begun)
}

impl Begun {
    /// Whether what is started waits for its confirmation.
    pub fn is_pending(&self, now: &Now) -> bool {
        self.book.with_store(|it| it.pending(now)).is_some()
    }

    /// What waited for its confirmation cannot be started; what was before takes its place.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn go_back(&mut self, why: &str, now: &Now) -> Result<(), ConfigErrors> {
        let file = self.book.read_file()?;
        let origin = self.book.path.to_string_lossy().into_owned();
        self.config = patronus_config::load_text(&file, &origin, &base_of(&self.book.path))?;
        let number = self.book.with_store(|store| {
            let number = store.running();
            let _ = store.revert(ConfigFate::Failed);
            number
        });
        let text = format!(
            "configuration {} could not be started and was taken back: {why}",
            number.unwrap_or_default()
        );
        self.notes.push((GradeView::Bad, text));
        self.choose(file, now);
        Ok(())
    }

    /// The file, with `self.config` what it says, or an entry that it gives way to.
    fn choose(&mut self, file: String, now: &Now) {
        let (book, base) = (self.book.clone(), base_of(&self.book.path));
        let mut inner = book.lock();
        let is_pending = inner.store.pending(now).is_some();
        let number = match inner.store.choose(&file, now) {
            Choice::Entry(number) | Choice::Pending(number) => number,
            Choice::File => {
                let order = Order {
                    text: &file,
                    origin: ConfigOrigin::Start,
                    uid: None,
                    source: book.path.display().to_string(),
                };
                let recorded = inner.store.record(&order, Some(&file), now);
                if let Err(error) = recorded
                    && inner.store.is_open()
                {
                    let text = format!("the configuration is not recorded: {error}");
                    self.notes.push((GradeView::Warning, text));
                }
                inner.running = file;
                return;
            }
        };
        let taken = inner.store.text(number).map_err(|it| it.to_string());
        let taken = taken.and_then(|text| {
            let config = patronus_config::load_text(&text, &format!("entry {number}"), &base);
            let config = config.map_err(|errors| errors.to_string())?;
            Ok((text, config))
        });
        match taken {
            Ok((text, config)) => {
                (inner.running, self.config) = (text, config);
                let text = match is_pending {
                    true => format!(
                        "started with configuration {number}, which waits for its confirmation"
                    ),
                    false => format!(
                        "started with configuration {number}, not with {}: that file was not touched since {number} was \
                         put in force; `patronus config diff` shows what differs",
                        book.path.display()
                    ),
                };
                self.notes.push((GradeView::Warning, text));
            }
            Err(why) => {
                let _ = inner.store.revert(ConfigFate::Failed);
                inner.running = file;
                let text = format!(
                    "configuration {number} cannot be started, {} is: {why}",
                    book.path.display()
                );
                self.notes.push((GradeView::Bad, text));
            }
        }
    }
}

fn reverted_at_start(store: &mut ConfigStore, now: &Now) -> String {
    let pending = store.pending(now);
    let (number, previous) = pending.map_or((0, 0), |it| (it.number, it.previous));
    let mut text = format!(
        "configuration {number} was not confirmed in time, or before the machine was started anew: {previous} is back"
    );
    if let Err(error) = store.revert(ConfigFate::Reverted) {
        text += &format!(" (not recorded: {error})");
    }
    text
}

impl ConfigBook {
    /// The daemon's end of the door, once.
    pub fn take_calls(&self) -> Option<mpsc::Receiver<ConfigCall>> {
        self.lock().calls.take()
    }

    /// Hands an order to the daemon and waits for what becomes of it.
    ///
    /// # Errors
    /// What the daemon says; that it is ending.
    pub async fn order(
        &self,
        request: ConfigCommandRequest,
        uid: Option<u32>,
    ) -> Result<ConfigCommandResponse, Refused> {
        let (reply, answer) = oneshot::channel();
        let ending = || Refused::failed("the gateway is ending");
        let sent = self.calls.send((request, uid, reply)).await;
        sent.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }

    /// What was and what is.
    pub fn view(&self, now: &Now) -> ConfigResponse {
        let file = self.read_file();
        let inner = self.lock();
        let file_state = match file {
            Err(_) => ConfigFileState::Unreadable,
            Ok(text) if text == inner.running => ConfigFileState::Same,
            Ok(text) if inner.store.is_seen(&text) => ConfigFileState::Superseded,
            Ok(_) => ConfigFileState::Edited,
        };
        ConfigResponse {
            file: self.path.display().to_string(),
            file_state,
            running: inner.number(),
            at_next_start: inner.at_next_start(),
            pending: inner.store.pending(now),
            dir: inner.store.dir().display().to_string(),
            problem: inner.store.problem().map(str::to_owned),
            entries: inner.store.entries(),
        }
    }

    /// The text of an entry, of what runs, or of the file.
    ///
    /// # Errors
    /// There is no such text.
    pub fn text(&self, entry: &str) -> Result<ConfigTextResponse, Refused> {
        let (number, text) = match entry {
            "running" => {
                let inner = self.lock();
                (inner.number(), inner.running.clone())
            }
            "file" => (None, self.read_file().map_err(unreadable)?),
            other => {
                let number = other.parse().map_err(|_| {
                    let error = format!("`{}` is no entry", shown(other));
                    Refused::field("entry", error, "write a number, `running` or `file`")
                })?;
                let text = self.lock().store.text(number).map_err(|it| missing(&it))?;
                (Some(number), text)
            }
        };
        Ok(ConfigTextResponse { number, text })
    }

    /// The text in force, and its number.
    pub fn running(&self) -> (String, Option<u64>) {
        let inner = self.lock();
        (inner.running.clone(), inner.number())
    }

    /// This text is in force from here on; what of it waits for a start.
    pub fn set_running(&self, text: String, at_next_start: Vec<&'static str>) {
        let mut inner = self.lock();
        inner.running = text;
        inner.at_next_start = at_next_start;
    }

    /// Asks the history, or writes to it.
    pub fn with_store<T>(&self, work: impl FnOnce(&mut ConfigStore) -> T) -> T {
        work(&mut self.lock().store)
    }

    /// The file's text.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_file(&self) -> Result<String, ConfigErrors> {
        patronus_config::load::read_text(&self.path, &self.path.to_string_lossy())
    }

    /// Puts the running text into the file, where that loses nothing: the file was not edited since the last order, and its
    /// text is in the history. What stands in the way, if it was not done.
    pub fn write_file(&self) -> Option<String> {
        let mut inner = self.lock();
        let refused = |why: &str| {
            Some(format!(
                "{} was left as it is: {why}; `patronus config show running` prints what runs",
                self.path.display()
            ))
        };
        let file = match self.read_file() {
            Ok(file) if file == inner.running => return None,
            Ok(file) => file,
            Err(_) => return refused("it cannot be read"),
        };
        if !inner.store.is_seen(&file) {
            return refused("it was edited since");
        }
        if !inner.store.holds(&config_store::digest(&file)) {
            return refused("its text is not in the history");
        }
        match overwrite(&self.path, inner.running.as_bytes()) {
            Ok(()) => {
                let running = inner.running.clone();
                let saw = inner.store.saw(&running);
                saw.err().map(|error| format!("not recorded: {error}"))
            }
            Err(why) => refused(&why),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The entry of the running text; `None` where it could not be recorded.
    fn number(&self) -> Option<u64> {
        let number = self.store.running()?;
        let sha256 = config_store::digest(&self.running);
        let entries = self.store.entries();
        let mut entries = entries.iter();
        entries
            .any(|it| it.number == number && it.sha256 == sha256)
            .then_some(number)
    }

    fn at_next_start(&self) -> Vec<String> {
        self.at_next_start.iter().map(|&it| it.to_owned()).collect()
    }
}

/// What changes from `old` to `new`.
pub fn changes_view(old: &str, new: &str) -> Vec<ConfigChangeView> {
    let changes = patronus_config::changes(old, new).into_iter();
    changes
        .map(|it| ConfigChangeView {
            key: it.key,
            old: it.old,
            new: it.new,
        })
        .collect()
}

/// What is wrong with a text.
pub fn faulty(field: &str, errors: &ConfigErrors) -> Refused {
    Refused::field(field, errors.to_string(), "correct it; nothing was changed")
}

/// An entry that is not to be had.
pub fn missing(error: &StoreError) -> Refused {
    let fix = "`patronus config history` lists what is kept";
    match error {
        StoreError::NoEntry(_) => Refused::missing("number", error.to_string(), fix),
        StoreError::Changed(_) | StoreError::Disk { .. } | StoreError::Off(_) => {
            Refused::conflict("number", error.to_string(), fix)
        }
    }
}

fn unreadable(errors: ConfigErrors) -> Refused {
    let fix = "give the gateway's user read access";
    Refused::conflict("entry", errors.to_string(), fix)
}

fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

/// Another text in the place of a file, whose owner and mode stay; a link is followed.
fn overwrite(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let say = |error: io::Error| error.to_string();
    let path = std::fs::canonicalize(path).map_err(say)?;
    let was = std::fs::metadata(&path).map_err(say)?;
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if (was.uid(), was.gid()) != (uid.as_raw(), gid.as_raw()) && !uid.is_root() {
        return Err("it belongs to another user".to_owned());
    }
    let written =
        config_store::write_whole_as(&path, bytes, Some((was.mode(), was.uid(), was.gid())));
    written.map_err(|error| error.to_string())
}
