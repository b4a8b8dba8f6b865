//! `patronus demo --console` on a terminal: three live sites, what the screens say beside what the API says, and nothing left
//! of it afterwards, neither on the terminal nor in the machine.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use patronus_api::{Client, FlowsQuery};
use patronus_lab::Program;
use patronus_lab::proc::is_alive;
use patronus_lab::terminal::Terminal;

const COLUMNS: u16 = 100;
const ROWS: u16 = 30;
/// Far longer than it takes: only a demo that hangs gets here.
const PATIENCE: Duration = Duration::from_secs(120);
/// Screens say three digits.
const ROUNDING: f64 = 0.006;

fn program() -> Option<Program> {
    if !common::can_run() {
        return None;
    }
    common::patronus()
}

struct Demo {
    child: Child,
    terminal: Terminal,
    gateways: Vec<u32>,
}

impl Demo {
    fn start(program: &Program) -> Self {
        let mut command = Command::new(program.binary());
        command.args(["demo", "--console", "--sites", "3"]);
        let (terminal, child) = Terminal::start(&mut command, COLUMNS, ROWS).unwrap();
        let mut demo = Self {
            child,
            terminal,
            gateways: Vec::new(),
        };
        demo.until("[1 Overview]", |picture| picture.contains("[1 Overview]"));
        let written = demo.terminal.display().written().to_owned();
        let pids = written.lines().filter_map(|line| {
            let (_, command) = line.split_once("nsenter -t ")?;
            command.split(' ').next()?.parse().ok()
        });
        demo.gateways = pids.collect();
        assert_eq!(demo.gateways.len(), 3, "{written}");
        demo
    }

    /// Waits for a picture.
    fn until(&mut self, what: &str, mut is_so: impl FnMut(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let picture = self.terminal.display().picture();
            if is_so(&picture) {
                return picture;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                begun.elapsed() < PATIENCE && ended.is_none(),
                "{what} never came ({ended:?}):\n{picture}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn press(&mut self, keys: &str) {
        self.terminal.press(keys).unwrap();
    }

    fn client(&self) -> Client {
        let socket = format!(
            "/proc/{}/root{}",
            self.gateways[0],
            patronus_api::SOCKET_PATH
        );
        Client::connect(&PathBuf::from(socket)).unwrap()
    }

    /// Waits for the end: nothing of the demo is left, and the terminal is as it was found.
    fn end(&mut self) -> String {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "the demo did not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(
            self.terminal.is_as_found().unwrap(),
            "the terminal is not as it was found"
        );
        let left: Vec<_> = self.gateways.iter().filter(|pid| is_alive(**pid)).collect();
        assert!(left.is_empty(), "gateways {left:?} outlive their demo");
        // What was written last may still be on its way through the terminal.
        let written = loop {
            let written = self.terminal.display().written().to_owned();
            if written.contains("balanced") || begun.elapsed() > PATIENCE {
                break written;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{status}: {written:?}");
        written
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Of a test that failed nothing is left; its gateways end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `12.3 MB` as bytes.
fn bytes(number: &str, unit: &str) -> f64 {
    let scale = match unit {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        other => panic!("{other} is no unit of bytes"),
    };
    number.parse::<f64>().unwrap() * scale
}

/// What the sessions of the selected peer received and sent, as the screen has it.
fn sessions_shown(picture: &str) -> Option<(f64, f64)> {
    let lines = picture.lines().filter(|line| line.contains("│ worker "));
    let sums = lines.map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |word: &str| {
            let at = words.iter().position(|it| *it == word)?;
            Some(bytes(words.get(at + 1)?, words.get(at + 2)?))
        };
        Some((after("rx")?, after("tx")?))
    });
    let sums: Vec<(f64, f64)> = sums.collect::<Option<_>>()?;
    let sum = sums
        .iter()
        .fold((0.0, 0.0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    (!sums.is_empty()).then_some(sum)
}

fn sessions_told(client: &Client, peer: &str) -> (f64, f64) {
    let peers = client.peers().unwrap().peers;
    let peer = peers.into_iter().find(|it| it.peer == peer).unwrap();
    let sessions = peer.sessions.iter();
    sessions.fold((0.0, 0.0), |sum, it| {
        (sum.0 + it.rx_bytes as f64, sum.1 + it.tx_bytes as f64)
    })
}

/// Packets and bytes of the selected flow, as the screen has them: `both ways 96.9 MB in 91 883 packets`.
fn flow_shown(picture: &str) -> Option<(u64, f64)> {
    let line = picture.lines().find(|line| line.contains("both ways"))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|it| *it == "ways")?;
    let size = bytes(words.get(at + 1)?, words.get(at + 2)?);
    let end = words.iter().position(|it| *it == "packets")?;
    let digits: String = words.get(at + 4..end)?.concat();
    Some((digits.parse().ok()?, size))
}

#[test]
fn what_the_console_shows_of_three_live_sites_is_what_the_api_tells() {
    let Some(program) = program() else {
        return;
    };
    let mut demo = Demo::start(&program);
    let client = demo.client();
    demo.until("both tunnels", |picture| {
        let line = picture.lines().find(|line| line.contains("tunnels up"));
        line.is_some_and(|line| line.contains("2 / 2"))
    });
    let status = client.status().unwrap();
    assert_eq!((status.peers_up, status.peers), (2, 2));

    // Counters grow: what the screen says lies between what the API says before and after.
    demo.press("3");
    let picture = demo.until("a peer", |picture| picture.contains("─ Peer site"));
    let peer = picture.lines().find_map(|line| line.split_once("─ Peer "));
    let peer = peer.unwrap().1.split(' ').next().unwrap().to_owned();
    let before = sessions_told(&client, &peer);
    let mut shown = (0.0, 0.0);
    demo.until("what the sessions carried", |picture| {
        let Some(seen) = sessions_shown(picture) else {
            return false;
        };
        shown = seen;
        shown.0 >= before.0 * (1.0 - ROUNDING) && shown.1 >= before.1 * (1.0 - ROUNDING)
    });
    let after = sessions_told(&client, &peer);
    for (shown, after) in [(shown.0, after.0), (shown.1, after.1)] {
        assert!(
            shown > 0.0 && shown <= after * (1.0 + ROUNDING),
            "{peer}: {shown} on the screen, then {after}"
        );
    }

    // The stream between the first two sites, alone on the screen.
    demo.press("4");
    demo.until("flows", |picture| picture.contains("[4 Flows]"));
    demo.press("/proto=tcp peer=site2\r");
    let flow = || {
        let query = FlowsQuery {
            filter: Some("proto=tcp peer=site2".to_owned()),
            ..FlowsQuery::default()
        };
        let flows = client.flows(&query).unwrap().flows;
        assert_eq!(flows.len(), 1, "{flows:?}");
        (flows[0].packets, flows[0].bytes as f64)
    };
    let before = flow();
    let mut shown = (0, 0.0);
    demo.until("the stream", |picture| {
        let is_alone = picture.contains("─ Flows 1 ");
        let Some(seen) = flow_shown(picture).filter(|_| is_alone) else {
            return false;
        };
        shown = seen;
        shown.0 >= before.0
    });
    let after = flow();
    assert!(shown.0 <= after.0, "{shown:?}, then {after:?}");
    assert!(
        shown.1 >= before.1 * (1.0 - ROUNDING) && shown.1 <= after.1 * (1.0 + ROUNDING),
        "{before:?}, {shown:?}, {after:?}"
    );

    demo.press("q");
    let written = demo.end();
    assert!(
        written.contains("balanced") && !written.contains("NOT BALANCED"),
        "{written}"
    );
    assert!(written.contains("0 streams broke"), "{written}");
}

#[test]
fn a_signal_ends_the_console_and_the_sites_beneath_it() {
    let Some(program) = program() else {
        return;
    };
    let mut demo = Demo::start(&program);
    let pid = i32::try_from(demo.child.id()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    let written = demo.end();
    assert!(written.contains("\x1b[?1049l"), "{written:?}");
}

#[test]
fn without_a_terminal_the_console_of_the_demo_says_so_and_builds_nothing() {
    let Some(program) = common::patronus() else {
        return;
    };
    let output = Command::new(program.binary())
        .args(["demo", "--console"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("needs a terminal") && errors.contains("--once"),
        "{errors}"
    );
    assert!(!errors.contains("starting"), "{errors}");
}

#[test]
fn one_screen_of_the_demo_goes_to_a_pipe() {
    let Some(program) = program() else {
        return;
    };
    let output = Command::new(program.binary())
        .args([
            "demo",
            "--console",
            "--once",
            "--screen",
            "peers",
            "--size",
            "100x30",
        ])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let screen = String::from_utf8(output.stdout).unwrap();
    assert_eq!(screen.lines().count(), 30, "{screen}");
    for site in ["site2", "site3"] {
        assert!(screen.contains(&format!("{site} ")), "{screen}");
    }
    assert!(errors.contains("balanced"), "{errors}");
}
