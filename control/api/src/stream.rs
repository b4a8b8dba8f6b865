//! Answers that come piece by piece: as much of HTTP/1.1 as a recording needs (RFC 9112, section 7.1).

use std::io::{self, BufRead, Read, Write};

/// How an answer's body is told from what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// In chunks; the last one is empty.
    Chunked,
    /// It ends with the connection.
    Whole,
}

/// Reads status and headers; `None` for what is no HTTP.
///
/// # Errors
/// What the connection answers.
pub fn read_head(reader: &mut impl BufRead) -> io::Result<Option<(u16, Body)>> {
    let first = line(reader)?;
    let mut words = first.split(' ');
    let is_http = words.next().is_some_and(|it| it.starts_with("HTTP/1."));
    let status = words.next().and_then(|it| it.parse().ok());
    let (true, Some(status)) = (is_http, status) else {
        return Ok(None);
    };
    let mut body = Body::Whole;
    for _ in 0..HEADERS_MAX {
        let header = line(reader)?;
        if header.is_empty() {
            return Ok(Some((status, body)));
        }
        let header = header.to_ascii_lowercase();
        if let Some(coding) = header.strip_prefix("transfer-encoding:")
            && coding.trim() == "chunked"
        {
            body = Body::Chunked;
        }
    }
    Ok(None)
}

/// Copies chunks as they come, to the last one. How many bytes that were.
///
/// # Errors
/// What either side answers; [`io::ErrorKind::UnexpectedEof`] where the connection ended before the answer did.
pub fn copy_chunks(reader: &mut impl BufRead, out: &mut dyn Write) -> io::Result<u64> {
    let mut sum = 0;
    loop {
        let size = line(reader)?;
        let digits = size.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16);
        let size = size.map_err(|_| io::Error::other(format!("`{digits}` is no chunk size")))?;
        if size == 0 {
            out.flush()?;
            return Ok(sum);
        }
        let copied = io::copy(&mut reader.take(size), out)?;
        sum += copied;
        if copied < size {
            return Err(cut());
        }
        out.flush()?;
        if !line(reader)?.is_empty() {
            return Err(io::Error::other("a chunk is longer than it says"));
        }
    }
}

/// A line without its end.
fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    reader.take(LINE_LEN_MAX).read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Err(cut());
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn cut() -> io::Error {
    let why = "the answer ends in the middle";
    io::Error::new(io::ErrorKind::UnexpectedEof, why)
}

const HEADERS_MAX: usize = 100;
const LINE_LEN_MAX: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(chunks: &[u8]) -> io::Result<String> {
        let mut out = Vec::new();
        copy_chunks(&mut &chunks[..], &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn chunks_are_joined_up_to_the_empty_one() {
        assert_eq!(
            copied(b"4\r\n{1}\n\r\n6;x=1\r\n{22}\n\n\r\n0\r\n\r\n").unwrap(),
            "{1}\n{22}\n\n"
        );
    }

    #[test]
    fn an_answer_that_was_cut_anywhere_is_an_error() {
        let whole = b"4\r\n{1}\n\r\n4\r\n{2}\n\r\n0\r\n";
        for len in 0..whole.len() {
            assert!(copied(&whole[..len]).is_err(), "{len}");
        }
        assert!(copied(whole).is_ok());
    }

    #[test]
    fn what_is_no_chunk_size_is_an_error() {
        for chunks in [
            b"x\r\n".as_slice(),
            b"\r\n\r\n",
            b"fffffffffffffffff\r\n",
            b"1\r\nab\r\n",
        ] {
            assert!(copied(chunks).is_err());
        }
    }

    #[test]
    fn a_head_tells_status_and_coding() {
        let head = |text: &str| read_head(&mut text.as_bytes()).ok().flatten();
        assert_eq!(
            head("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"),
            Some((200, Body::Chunked))
        );
        assert_eq!(
            head("HTTP/1.1 404 Not Found\r\nx: y\r\n\r\n"),
            Some((404, Body::Whole))
        );
        assert_eq!(head("SSH-2.0\r\n\r\n"), None);
        assert_eq!(head("HTTP/1.1 200 OK\r\nx"), None);
    }
}
