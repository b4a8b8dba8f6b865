//! The terminal: taken at the start, given back as it was found on every way out, a panic and a signal among them.

use std::io::{self, Stdout, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use ratatui::Terminal as Screen;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use crate::model::Model;
use crate::view;

/// A terminal that belongs to the console until this is dropped.
pub struct Terminal {
    screen: Screen<CrosstermBackend<Stdout>>,
}

/// Whether the terminal is the console's at the moment: it is given back once.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

impl Terminal {
    /// Takes the terminal.
    ///
    /// # Errors
    /// Where standard output is no terminal.
    pub fn take() -> io::Result<Self> {
        restore_on_panic();
        enable_raw_mode()?;
        IS_TAKEN.store(true, Ordering::SeqCst);
        let entered = execute!(io::stdout(), EnterAlternateScreen);
        let screen = entered.and_then(|()| Screen::new(CrosstermBackend::new(io::stdout())));
        match screen {
            Ok(screen) => Ok(Self { screen }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Draws the console.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub fn draw(&mut self, model: &Model) -> io::Result<()> {
        self.screen
            .draw(|frame| view::draw(model, frame.buffer_mut()))?;
        Ok(())
    }

    /// Columns and rows.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub fn size(&self) -> io::Result<(u16, u16)> {
        let size = self.screen.size()?;
        Ok((size.width, size.height))
    }

    /// Puts a text into the clipboard of the terminal (OSC 52 of xterm); one that knows none ignores it.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub fn copy(&mut self, text: &str) -> io::Result<()> {
        let mut out = io::stdout();
        write!(out, "\x1b]52;c;{}\x07", BASE64.encode(text))?;
        out.flush()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back. What fails here cannot be helped.
fn restore() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// A panic's message must be readable, so the terminal is given back before it is written.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
    });
}
