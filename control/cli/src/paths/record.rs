//! `patronus path record`.

use std::io::{ErrorKind, Write};

use patronus_api::ClientError;

use super::words::bytes;
use super::{DONE, RecordArgs};

/// Records to standard output, and tells how much on standard error.
pub fn record(args: &RecordArgs) -> anyhow::Result<u8> {
    let client = args.gateway.connect()?;
    let mut out = std::io::stdout().lock();
    let outcome = client.trace(&args.peer, args.seconds, &mut out);
    match outcome {
        Ok(count) => {
            out.flush()?;
            eprintln!("recorded {} in {} s", bytes(count), args.seconds);
            Ok(DONE)
        }
        // A reader that went away has what it wanted.
        Err(ClientError::Broken { reason, .. }) if reason.kind() == ErrorKind::BrokenPipe => {
            Ok(DONE)
        }
        Err(error) => Err(error.into()),
    }
}
