//! Instructions per packet of every stage, counted by valgrind: they repeat where times do not, so they can gate a
//! change. `bench/icount/run` builds and runs this.
//!
//! Without arguments the cases are counted and compared with `baseline.json`; `--bless` rewrites it. One case
//! (`patronus-icount case NAME ROUNDS`) is what runs inside valgrind, once with N and once with 2N rounds: the
//! difference knows nothing of the set-up. Only functions named `counted_…` count, so traffic costs nothing.
//!
//! 0: nothing grew, or the baseline belongs to another compiler and only informs. 1: something grew by more than 3 %.
//! 2: this machine cannot count.

mod cases;
mod gate;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        ["case", name, rounds] => cases::run(name, rounds).map(|packets| {
            println!("{packets}");
            true
        }),
        [] => gate::gate(false),
        ["--bless"] => gate::gate(true),
        _ => {
            eprintln!("usage: patronus-icount [--bless | case NAME ROUNDS]");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("patronus-icount: {error:#}");
            ExitCode::from(2)
        }
    }
}
