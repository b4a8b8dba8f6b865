//! The console on a terminal of its own: it starts, shows every screen, follows a new size, and gives the terminal back as
//! it was: on `q`, on SIGTERM and after a panic. The program under test is this test binary, started again.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;
use patronus_tui::{Feed, Message, Options, ReplayFeed, Request};

const CHILD: &str = "PATRONUS_CONSOLE_CHILD";
/// Far longer than it takes: only a console that hangs gets here.
const PATIENCE: Duration = Duration::from_secs(60);
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

/// A feed that fails as no feed should.
struct Panicking;

impl Feed for Panicking {
    fn start(self: Box<Self>, _: Sender<Message>) -> Sender<Request> {
        panic!("this feed panics");
    }
}

/// The child's part; as a test of its own it does nothing.
#[test]
fn child() {
    let Ok(role) = std::env::var(CHILD) else {
        return;
    };
    let feed: Box<dyn Feed> = match role.as_str() {
        "panic" => Box::new(Panicking),
        _ => Box::new(ReplayFeed::open(&common::recording()).unwrap()),
    };
    let options = Options {
        look: common::look(),
        record: None,
    };
    patronus_tui::run(&options, feed).unwrap();
}

struct Console {
    child: Child,
    master: File,
    slave: File,
    before: Termios,
    output: Arc<Mutex<Vec<u8>>>,
}

impl Console {
    fn start(role: &str) -> Self {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let stdio = || Stdio::from(pty.slave.try_clone().unwrap());
        // A session of its own, so that the terminal is its controlling one and a new size reaches it.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(CHILD, role)
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        let output = Arc::new(Mutex::new(Vec::new()));
        let mut reader = File::from(pty.master.try_clone().unwrap());
        let written = Arc::clone(&output);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len) = reader.read(&mut bytes) {
                written.lock().unwrap().extend_from_slice(&bytes[..len]);
            }
        });
        Self {
            child,
            master: File::from(pty.master),
            slave: File::from(pty.slave),
            before,
            output,
        }
    }

    fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned()
    }

    fn await_output(&self, what: &str) {
        self.await_that(what, |output| output.contains(what));
    }

    fn await_that(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        while !is_so(&self.output()) {
            assert!(
                begun.elapsed() < PATIENCE,
                "{what:?} never came: {:?}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn press(&mut self, keys: &str) {
        self.output.lock().unwrap().clear();
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    fn resize(&self, columns: u16, rows: u16) {
        let size = rustix::termios::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        self.output.lock().unwrap().clear();
        rustix::termios::tcsetwinsize(&self.master, size).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits for the end; the terminal has to be as it was found.
    fn end(mut self) -> (ExitStatus, String) {
        let (ended, status) = channel();
        let mut child = self.child;
        std::thread::spawn(move || ended.send(child.wait().unwrap()));
        let status = status
            .recv_timeout(PATIENCE)
            .expect("the console did not end");
        let after = tcgetattr(self.slave.as_fd()).unwrap();
        assert_eq!(after, self.before, "the terminal is not as it was found");
        // What was written last may still be on its way through the terminal.
        let _ = self.slave.flush();
        let begun = Instant::now();
        let read = || String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned();
        while !read().contains(LEAVE) && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        (status, read())
    }
}

#[test]
fn it_shows_every_screen_and_gives_the_terminal_back() {
    let mut console = Console::start("replay");
    console.await_output(ENTER);
    console.await_output("Throughput");
    for (number, word) in [
        ("2", "Paths to"),
        ("3", "Peers"),
        ("4", "Flows"),
        ("5", "Rules"),
        ("6", "Workers,"),
        ("7", "Events"),
    ] {
        console.press(number);
        // Only what changes is drawn, so a title may come in parts; its screen's number in brackets comes whole.
        console.await_that(word, |output| {
            output.contains(&format!("[{number}")) || output.contains(word)
        });
    }
    console.resize(70, 20);
    console.await_output("needs");
    console.resize(120, 36);
    console.press("1");
    console.await_output("Throughput");
    console.press("q");
    let (status, output) = console.end();
    assert!(status.success(), "{output}");
    assert!(output.contains(LEAVE), "{output:?}");
}

#[test]
fn it_ends_on_sigterm_and_gives_the_terminal_back() {
    let console = Console::start("replay");
    console.await_output("Throughput");
    console.signal(Signal::SIGTERM);
    let (status, output) = console.end();
    assert!(status.success(), "{output}");
    assert!(output.contains(LEAVE), "{output:?}");
}

#[test]
fn a_panic_gives_the_terminal_back_before_it_is_told() {
    let console = Console::start("panic");
    console.await_output("this feed panics");
    let (status, output) = console.end();
    assert!(!status.success());
    let (left, told) = (
        output.find(LEAVE).unwrap(),
        output.find("this feed panics").unwrap(),
    );
    assert!(left < told, "{output:?}");
}
