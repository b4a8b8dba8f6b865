//! A transfer whose content is checked: random bytes over TCP, hashed on both ends.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use blake2::{Blake2b512, Digest};

use super::tcp::{connect, is_timeout};
use crate::Namespace;

/// Sends `bytes` pseudo-random bytes (a function of `seed`) from `from` to `addr` in `to` and compares
/// BLAKE2b hashes; the time it took.
///
/// # Errors
/// A connection that fails, a transfer not done within `max`, or bytes that arrived otherwise than they
/// were sent.
pub fn verified_transfer(
    from: &Namespace,
    to: &Namespace,
    addr: IpAddr,
    bytes: u64,
    seed: u64,
    max: Duration,
) -> Result<Duration> {
    let (sender, receiver) = connect(from, to, addr)?;
    let begun = Instant::now();
    let end = begun + max;
    let (sent, received) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| send(sender, bytes, seed, end));
        let received = receive(receiver, end);
        (sending.join(), received)
    });
    let sent = match sent {
        Ok(sent) => sent.context("sending")?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let (received, count) = received.context("receiving")?;
    ensure!(
        count == bytes,
        "{count} bytes arrived of {bytes} sent to {addr}"
    );
    ensure!(
        sent == received,
        "{bytes} bytes arrived at {addr} with another hash"
    );
    Ok(begun.elapsed())
}

fn send(mut stream: TcpStream, bytes: u64, seed: u64, end: Instant) -> Result<Vec<u8>> {
    let mut random = SplitMix64(seed);
    let mut hash = Blake2b512::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut left = bytes;
    while left > 0 {
        let len = usize::try_from(left).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
        random.fill(&mut buffer[..len]);
        hash.update(&buffer[..len]);
        let mut at = 0;
        while at < len {
            match stream.write(&buffer[at..len]) {
                Ok(written) => at += written,
                Err(error) if is_timeout(&error) && Instant::now() < end => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("{left} bytes before the end"));
                }
            }
        }
        left -= len as u64;
    }
    stream
        .shutdown(Shutdown::Write)
        .context("ending the flow")?;
    Ok(hash.finalize().to_vec())
}

fn receive(mut stream: TcpStream, end: Instant) -> Result<(Vec<u8>, u64)> {
    let mut hash = Blake2b512::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut count = 0;
    loop {
        if Instant::now() > end {
            bail!("the transfer is not done in time: {count} bytes have arrived");
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Ok((hash.finalize().to_vec(), count)),
            Ok(len) => {
                hash.update(&buffer[..len]);
                count += len as u64;
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error).with_context(|| format!("after {count} bytes")),
        }
    }
}

/// Steele, Lea and Flood's generator: no two blocks of a transfer are alike, and that is all it is for.
struct SplitMix64(u64);

impl SplitMix64 {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            chunk.copy_from_slice(&z.to_le_bytes()[..chunk.len()]);
        }
    }
}

const BUFFER_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_published_sequence() {
        // First output for seed 1234567, from the reference implementation (prng.di.unimi.it/splitmix64.c).
        let mut bytes = [0; 9];
        SplitMix64(1_234_567).fill(&mut bytes);
        assert_eq!(
            u64::from_le_bytes(*bytes.first_chunk().unwrap()),
            6_457_827_717_110_365_317
        );
    }
}
