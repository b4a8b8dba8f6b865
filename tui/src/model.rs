//! The console's state, and what keys, data and time do to it. No terminal, no socket, no clock: [`Model::update`] takes a
//! message and says what is to be done outside.

use patronus_api::{ExplainRequest, FlowSort, FlowsQuery, PathCommand, PathCommandRequest};
use ratatui::crossterm::event::KeyCode;

use crate::data::{Data, News};
use crate::export;
use crate::keymap::{self, Action, Key, Screen};
use crate::screens;
use crate::table::{Row, TableState};
use crate::theme::{Glyphs, Mark, Theme};

/// How a console is to look and what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The colours.
    pub theme: Theme,
    /// The characters.
    pub glyphs: Glyphs,
    /// Whether it may change the gateway.
    pub can_write: bool,
    /// The screen that it begins with.
    pub screen: Screen,
}

/// The state.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// How it looks.
    pub look: Look,
    /// The screen that is shown.
    pub screen: Screen,
    /// What is shown.
    data: Data,
    /// What comes in behind a held picture.
    behind: Option<Box<Data>>,
    /// How it stands with the gateway.
    pub link: Link,
    /// Milliseconds since the console began.
    pub now_ms: u64,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
    /// What lies over the screen.
    pub overlay: Option<Overlay>,
    /// What is asked for in the last line.
    pub prompt: Option<Prompt>,
    /// An order that waits for the second key.
    pub pending: Option<Order>,
    /// What is said in the last line, until when.
    note: Option<(Note, u64)>,
    /// The peer that the screen of paths is about.
    pub site: Option<String>,
    /// Which of the spans of time curves show.
    pub zoom: usize,
    tables: [TableState; Screen::ALL.len()],
    flows_at: Asked,
    rules_at: Asked,
    /// What the gateway said of the filter of flows.
    pub refused: Option<String>,
}

/// How it stands with the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Nothing came yet.
    Waiting,
    /// The last snapshot came then.
    Live {
        /// In milliseconds since the console began.
        at_ms: u64,
    },
    /// It cannot be reached.
    Lost {
        /// Why.
        why: String,
        /// Since when.
        since_ms: u64,
    },
}

/// What happens to the console.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A key.
    Key(Key),
    /// The terminal has another size: columns, rows.
    Resize(u16, u16),
    /// The gateway said something.
    News(News),
    /// Time passed: milliseconds since the console began.
    Tick(u64),
}

/// What is to be done outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Ask the gateway.
    Ask(Request),
    /// Put a text into the terminal's clipboard.
    Copy(String),
    /// Write a file that does not exist yet.
    Export {
        /// Its path.
        path: String,
        /// Its content.
        text: String,
    },
    /// End.
    Quit,
}

/// A question or an order to the gateway.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// The flows.
    Flows(FlowsQuery),
    /// The rules.
    Rules,
    /// Why a connection passes or not.
    Explain(ExplainRequest),
    /// Something of a path.
    Order(Order),
}

/// An order.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Something of a path.
    Path {
        /// The peer.
        peer: String,
        /// What.
        request: PathCommandRequest,
        /// The same in words.
        words: String,
    },
    /// Meter the stages of the workers.
    Meter {
        /// For how long.
        seconds: u32,
    },
}

/// What lies over the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// The keys.
    Help,
    /// A text.
    Text {
        /// Its title.
        title: String,
        /// Its lines.
        lines: Vec<String>,
        /// The first line that is shown.
        first: usize,
    },
}

/// What the last line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What it is.
    pub kind: PromptKind,
    /// What was typed.
    pub text: String,
}

/// See [`Prompt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptKind {
    /// A filter for the rows.
    Filter,
    /// A file to export to.
    Export,
    /// A connection to explain.
    Explain,
}

/// What the last line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How good it is.
    pub mark: Mark,
    /// The words.
    pub text: String,
}

/// When something was asked for last, and whether the answer is still to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asked {
    at_ms: Option<u64>,
    is_open: bool,
}

/// How much time curves may show, in seconds.
pub const ZOOMS_S: [u64; 4] = [60, 300, 600, 900];
/// The usual one.
pub const ZOOM_USUAL: usize = 1;
/// The smallest terminal, in columns and rows.
pub const SIZE_MIN: (u16, u16) = (80, 24);
const NOTE_MS: u64 = 6000;
const FLOWS_EVERY_MS: u64 = 1000;
const RULES_EVERY_MS: u64 = 2000;
/// Of a question that was never answered, the next one.
const PATIENCE_MS: u64 = 20_000;
const FLOWS_SHOWN_MAX: usize = 1000;
const PROMPT_LEN_MAX: usize = 256;
const METER_S: u32 = 60;
/// The orders in which the gateway can sort flows, by the columns of the screen.
const FLOW_SORTS: [FlowSort; 6] = FlowSort::ALL;

impl Model {
    /// One that knows nothing yet.
    pub fn new(look: Look) -> Self {
        Self {
            look,
            screen: look.screen,
            data: Data::default(),
            behind: None,
            link: Link::Waiting,
            now_ms: 0,
            size: SIZE_MIN,
            overlay: None,
            prompt: None,
            pending: None,
            note: None,
            site: None,
            zoom: ZOOM_USUAL,
            tables: Default::default(),
            flows_at: Asked::default(),
            rules_at: Asked::default(),
            refused: None,
        }
    }

    /// Takes a message.
    pub fn update(&mut self, message: Message) -> Vec<Effect> {
        match message {
            Message::Key(key) => self.take_key(key),
            Message::Resize(columns, rows) => {
                self.size = (columns, rows);
                Vec::new()
            }
            Message::News(news) => {
                self.take_news(news);
                Vec::new()
            }
            Message::Tick(now_ms) => {
                self.now_ms = self.now_ms.max(now_ms);
                self.questions()
            }
        }
    }

    /// What is shown.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Whether the picture is held.
    pub fn is_frozen(&self) -> bool {
        self.behind.is_some()
    }

    /// What is to be said at the moment.
    pub fn note(&self) -> Option<&Note> {
        let (note, until) = self.note.as_ref()?;
        (self.now_ms < *until).then_some(note)
    }

    /// The table of the screen.
    pub fn table(&self) -> &TableState {
        &self.tables[self.screen.index()]
    }

    /// The rows of the screen as they are shown.
    pub fn rows(&self) -> Vec<Row> {
        let table = self.table();
        if self.screen == Screen::Flows {
            // The gateway has filtered and sorted them: the busiest of all, not of those that happen to be here.
            let mut rows = screens::rows(self);
            if table.is_reversed {
                rows.reverse();
            }
            return rows;
        }
        table.arrange(screens::rows(self))
    }

    /// The selected row.
    pub fn selected(&self) -> Option<Row> {
        let mut rows = self.rows();
        let place = self.table().place_in(&rows)?;
        Some(rows.swap_remove(place))
    }

    /// How much time curves show, in milliseconds.
    pub fn span_ms(&self) -> u64 {
        ZOOMS_S[self.zoom] * 1000
    }

    /// The peer that the screen of paths is about: the chosen one, or the first.
    pub fn site_shown(&self) -> Option<&str> {
        let peers = &self.data.snapshot.as_ref()?.paths.peers;
        let chosen = self.site.as_deref();
        let found = peers.iter().find(|peer| Some(peer.peer.as_str()) == chosen);
        found.or(peers.first()).map(|peer| peer.peer.as_str())
    }

    fn take_news(&mut self, news: News) {
        let now_ms = self.now_ms;
        let frozen = self.behind.as_deref_mut();
        let data = frozen.unwrap_or(&mut self.data);
        match news {
            News::Snapshot(snapshot) => {
                data.take_snapshot(snapshot);
                self.link = Link::Live { at_ms: now_ms };
            }
            News::Flows(flows) => {
                data.flows = Some(flows);
                self.flows_at.is_open = false;
                self.refused = None;
            }
            News::Rules(rules) => {
                data.rules = Some(rules);
                self.rules_at.is_open = false;
            }
            News::Explained(answer) => {
                let lines = answer.text.lines().map(str::to_owned).collect();
                let title = "Explain".to_owned();
                self.overlay = Some(Overlay::Text {
                    title,
                    lines,
                    first: 0,
                });
            }
            News::Ordered(answer) => {
                let mut text = answer.text;
                for warning in &answer.warnings {
                    text = format!("{text}; {warning}");
                }
                let mark = if answer.warnings.is_empty() {
                    Mark::Good
                } else {
                    Mark::Warning
                };
                self.say(mark, text);
            }
            News::Refused(why) => {
                if self.flows_at.is_open {
                    self.refused = Some(why.clone());
                }
                self.flows_at.is_open = false;
                self.rules_at.is_open = false;
                self.say(Mark::Bad, why);
            }
            News::Lost(why) => {
                let since_ms = match &self.link {
                    Link::Lost { since_ms, .. } => *since_ms,
                    Link::Live { .. } | Link::Waiting => now_ms,
                };
                self.flows_at.is_open = false;
                self.rules_at.is_open = false;
                self.link = Link::Lost { why, since_ms };
            }
        }
    }

    /// Says something in the last line for a while.
    pub fn say(&mut self, mark: Mark, text: impl Into<String>) {
        let text = text.into();
        self.note = Some((Note { mark, text }, self.now_ms + NOTE_MS));
    }

    /// What the screen needs beside the stream of snapshots.
    fn questions(&mut self) -> Vec<Effect> {
        if self.is_frozen() {
            return Vec::new();
        }
        let now_ms = self.now_ms;
        match self.screen {
            Screen::Flows if self.flows_at.is_due(now_ms, FLOWS_EVERY_MS) => {
                let table = &self.tables[Screen::Flows.index()];
                let filter = Some(table.filter.trim()).filter(|it| !it.is_empty());
                let query = FlowsQuery {
                    limit: Some(FLOWS_SHOWN_MAX),
                    filter: filter.map(str::to_owned),
                    sort: Some(self.flow_sort()),
                    skip: None,
                };
                vec![Effect::Ask(Request::Flows(query))]
            }
            Screen::Policy if self.rules_at.is_due(now_ms, RULES_EVERY_MS) => {
                vec![Effect::Ask(Request::Rules)]
            }
            _ => Vec::new(),
        }
    }

    /// The order that the gateway is to list flows in: only so are the busiest of many among those listed.
    pub fn flow_sort(&self) -> FlowSort {
        let sort = self.tables[Screen::Flows.index()].sort;
        sort.and_then(|at| FLOW_SORTS.get(at).copied())
            .unwrap_or_default()
    }

    fn take_key(&mut self, key: Key) -> Vec<Effect> {
        // What ends the console ends it whatever is open.
        if key == Key::Ctrl('c') {
            return vec![Effect::Quit];
        }
        if self.prompt.is_some() {
            return self.type_key(key);
        }
        if let Some(order) = self.pending.take() {
            return self.confirm(key, order);
        }
        if self.overlay.is_some() {
            self.overlay_key(key);
            return Vec::new();
        }
        let Some(action) = keymap::action(self.screen, key) else {
            return Vec::new();
        };
        self.act(action)
    }

    fn act(&mut self, action: Action) -> Vec<Effect> {
        match action {
            Action::Show(screen) => self.show(screen),
            Action::NextScreen => self.show(self.screen.moved(1)),
            Action::LastScreen => self.show(self.screen.moved(-1)),
            Action::Down => self.move_by(1),
            Action::Up => self.move_by(-1),
            Action::PageDown => self.move_by(self.page()),
            Action::PageUp => self.move_by(-self.page()),
            Action::First => self.move_by(isize::MIN),
            Action::Last => self.move_by(isize::MAX),
            Action::Next => self.change_site(1),
            Action::Previous => self.change_site(-1),
            Action::Open => self.open(),
            Action::Back => self.back(),
            Action::Filter => {
                let text = self.table().filter.clone();
                self.ask(PromptKind::Filter, text);
            }
            Action::Sort => self.sort(),
            Action::Reverse => {
                let table = &mut self.tables[self.screen.index()];
                table.is_reversed = !table.is_reversed;
            }
            Action::Freeze => self.freeze(),
            Action::ZoomIn => self.zoom = self.zoom.saturating_sub(1),
            Action::ZoomOut => self.zoom = (self.zoom + 1).min(ZOOMS_S.len() - 1),
            Action::ZoomReset => self.zoom = ZOOM_USUAL,
            Action::Explain => return self.explain(),
            Action::Copy => return self.copy(),
            Action::Export => {
                let name = format!("patronus-{}.txt", self.screen.title().to_lowercase());
                self.ask(PromptKind::Export, name);
            }
            Action::Help => self.overlay = Some(Overlay::Help),
            Action::Quit => return vec![Effect::Quit],
            Action::Pin | Action::Unpin | Action::Drain | Action::Clear | Action::Meter => {
                self.prepare(action);
            }
        }
        // A screen that was just opened, or sorted otherwise, does not wait for the next tick.
        self.questions()
    }

    fn show(&mut self, screen: Screen) {
        self.screen = screen;
        self.refused = None;
    }

    fn page(&self) -> isize {
        isize::try_from(self.size.1.saturating_sub(10).max(1)).unwrap_or(1)
    }

    fn move_by(&mut self, by: isize) {
        let rows = self.rows();
        self.tables[self.screen.index()].move_by(&rows, by);
    }

    fn change_site(&mut self, by: isize) {
        let Some(snapshot) = &self.data.snapshot else {
            return;
        };
        let peers = &snapshot.paths.peers;
        let shown = self.site_shown();
        let Some(place) = peers
            .iter()
            .position(|peer| Some(peer.peer.as_str()) == shown)
        else {
            return;
        };
        let place = (place as isize + by).rem_euclid(peers.len() as isize) as usize;
        let name = peers[place].peer.clone();
        self.show_site(name);
    }

    fn show_site(&mut self, name: String) {
        if self.site.as_ref() != Some(&name) {
            let table = &mut self.tables[Screen::Paths.index()];
            (table.selected, table.place) = (None, 0);
        }
        self.site = Some(name);
    }

    fn open(&mut self) {
        let Some(row) = self.selected() else {
            return;
        };
        match self.screen {
            Screen::Overview | Screen::Peers => {
                self.show_site(row.id);
                self.show(Screen::Paths);
            }
            Screen::Events => {
                let event = self
                    .data
                    .events
                    .iter()
                    .find(|it| it.number.to_string() == row.id);
                let Some((Some(peer), path)) = event.map(|event| (event.peer.clone(), event.path))
                else {
                    self.say(Mark::Absent, "this event is about no peer");
                    return;
                };
                self.show_site(peer.clone());
                if let Some(path) = path {
                    let table = &mut self.tables[Screen::Paths.index()];
                    table.selected = Some(format!("{peer}/{path}"));
                }
                self.show(Screen::Paths);
            }
            Screen::Paths | Screen::Flows | Screen::Policy | Screen::Workers => {}
        }
    }

    fn back(&mut self) {
        let table = &mut self.tables[self.screen.index()];
        if !table.filter.is_empty() {
            table.filter.clear();
            self.flows_at.at_ms = None;
        }
        self.refused = None;
        self.note = None;
    }

    fn sort(&mut self) {
        let columns = match self.screen {
            // The gateway sorts: see `flow_sort`.
            Screen::Flows => FLOW_SORTS.len(),
            _ => screens::columns(self).len(),
        };
        self.tables[self.screen.index()].sort_next(columns);
        self.flows_at.at_ms = None;
    }

    fn freeze(&mut self) {
        match self.behind.take() {
            Some(data) => self.data = *data,
            None => self.behind = Some(Box::new(self.data.clone())),
        }
    }

    fn explain(&mut self) -> Vec<Effect> {
        if self.screen != Screen::Flows {
            self.ask(PromptKind::Explain, String::new());
            return Vec::new();
        }
        let Some(flow) = screens::flows::selected(self) else {
            return Vec::new();
        };
        vec![Effect::Ask(Request::Explain(ExplainRequest {
            src: flow.src.to_string(),
            dst: flow.dst.to_string(),
            protocol: screens::flows::protocol_word(flow.protocol),
            port: screens::flows::has_ports(flow.protocol).then_some(flow.dst_port),
        }))]
    }

    fn copy(&mut self) -> Vec<Effect> {
        let Some(flow) = screens::flows::selected(self) else {
            return Vec::new();
        };
        let text = screens::flows::connection(flow);
        self.say(Mark::Good, format!("copied {text}"));
        vec![Effect::Copy(text)]
    }

    fn ask(&mut self, kind: PromptKind, text: String) {
        self.prompt = Some(Prompt { kind, text });
    }

    fn type_key(&mut self, key: Key) -> Vec<Effect> {
        let Some(prompt) = &mut self.prompt else {
            return Vec::new();
        };
        match key {
            Key::Char(char) if !char.is_control() && prompt.text.len() < PROMPT_LEN_MAX => {
                prompt.text.push(char);
            }
            Key::Named(KeyCode::Backspace) => {
                prompt.text.pop();
            }
            Key::Ctrl('u') => prompt.text.clear(),
            Key::Named(KeyCode::Esc) => self.prompt = None,
            Key::Named(KeyCode::Enter) => {
                let Some(prompt) = self.prompt.take() else {
                    return Vec::new();
                };
                return self.answer(prompt);
            }
            Key::Char(_) | Key::Ctrl(_) | Key::Named(_) => {}
        }
        Vec::new()
    }

    fn answer(&mut self, prompt: Prompt) -> Vec<Effect> {
        let text = prompt.text.trim().to_owned();
        match prompt.kind {
            PromptKind::Filter => {
                let table = &mut self.tables[self.screen.index()];
                table.filter = text;
                (table.selected, table.place) = (None, 0);
                self.flows_at = Asked::default();
                self.questions()
            }
            PromptKind::Export if text.is_empty() => Vec::new(),
            PromptKind::Export => match export::export(self, &text) {
                Ok(content) => vec![Effect::Export {
                    path: text,
                    text: content,
                }],
                Err(why) => {
                    self.say(Mark::Bad, why);
                    Vec::new()
                }
            },
            PromptKind::Explain => match parse_connection(&text) {
                Ok(request) => vec![Effect::Ask(Request::Explain(request))],
                Err(why) => {
                    self.say(Mark::Bad, why);
                    self.ask(PromptKind::Explain, text);
                    Vec::new()
                }
            },
        }
    }

    fn overlay_key(&mut self, key: Key) {
        let (page, lines_max) = (self.page(), self.size.1);
        let action = keymap::action(self.screen, key);
        let by = match action {
            Some(Action::Down) => 1,
            Some(Action::Up) => -1,
            Some(Action::PageDown) => page,
            Some(Action::PageUp) => -page,
            Some(Action::Back | Action::Quit | Action::Open | Action::Help) => {
                self.overlay = None;
                return;
            }
            _ if key == Key::Named(KeyCode::Enter) => {
                self.overlay = None;
                return;
            }
            _ => return,
        };
        if let Some(Overlay::Text { lines, first, .. }) = &mut self.overlay {
            let shown = usize::from(lines_max.saturating_sub(6));
            let last = lines.len().saturating_sub(shown);
            *first = first.saturating_add_signed(by).min(last);
        }
    }

    fn prepare(&mut self, action: Action) {
        let Some(binding) = keymap::binding(action) else {
            return;
        };
        if !self.look.can_write {
            let text = format!(
                "read-only: start the console with --write to {}",
                binding.words
            );
            self.say(Mark::Warning, text);
            return;
        }
        self.pending = match action {
            Action::Meter => Some(Order::Meter { seconds: METER_S }),
            _ => self.path_order(action),
        };
    }

    fn path_order(&self, action: Action) -> Option<Order> {
        let peer = self.site_shown()?.to_owned();
        let row = self.selected()?;
        let paths = &self.data.paths_of(&peer)?.paths;
        let path = paths.iter().find(|path| path.id == row.id)?;
        let command = match action {
            Action::Pin => PathCommand::Pin,
            Action::Unpin => PathCommand::Unpin,
            Action::Drain if path.is_draining => PathCommand::Undrain,
            Action::Drain => PathCommand::Drain,
            _ => PathCommand::Clear,
        };
        let words = match command {
            PathCommand::Pin => format!("pin every class to {} of {peer}", path.name),
            PathCommand::Unpin => format!("undo the pins of {peer}"),
            PathCommand::Drain => format!("drain {} of {peer}", path.name),
            PathCommand::Undrain => format!("undo the drain of {} of {peer}", path.name),
            PathCommand::Clear => format!("forget the penalties of {} of {peer}", path.name),
        };
        let is_unpin = command == PathCommand::Unpin;
        let request = PathCommandRequest {
            command,
            path: (!is_unpin).then(|| path.path.to_string()),
            class: None,
            dry_run: false,
        };
        Some(Order::Path {
            peer,
            request,
            words,
        })
    }

    fn confirm(&mut self, key: Key, order: Order) -> Vec<Effect> {
        if key == Key::Char('y') {
            return vec![Effect::Ask(Request::Order(order))];
        }
        self.say(Mark::Absent, "nothing was changed");
        Vec::new()
    }
}

impl Order {
    /// What it is, in words.
    pub fn words(&self) -> String {
        match self {
            Self::Path { words, .. } => words.clone(),
            Self::Meter { seconds } => {
                format!(
                    "meter the stages of every worker for {seconds} s, which costs some throughput"
                )
            }
        }
    }
}

impl Asked {
    /// Whether to ask again; if so, it counts as asked.
    fn is_due(&mut self, now_ms: u64, every_ms: u64) -> bool {
        let wait = if self.is_open { PATIENCE_MS } else { every_ms };
        let is_due = self.at_ms.is_none_or(|at| now_ms >= at + wait);
        if is_due {
            *self = Self {
                at_ms: Some(now_ms),
                is_open: true,
            };
        }
        is_due
    }
}

/// `SRC DST PROTO/PORT`, as `patronus explain` takes it.
fn parse_connection(text: &str) -> Result<ExplainRequest, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let &[src, dst, service] = &words[..] else {
        return Err("write SRC DST PROTO/PORT, such as 10.1.0.5 web/front-1 tcp/443".to_owned());
    };
    let (protocol, port) = match service.split_once('/') {
        None => (service, None),
        Some((protocol, port)) => {
            let number = port.parse::<u16>();
            let number =
                number.map_err(|_| format!("port \"{port}\": write a number from 0 to 65535"))?;
            (protocol, Some(number))
        }
    };
    Ok(ExplainRequest {
        src: src.to_owned(),
        dst: dst.to_owned(),
        protocol: protocol.to_owned(),
        port,
    })
}
