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
        let size = chunk_size(reader)?;
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
        end_of_chunk(reader)?;
    }
}

/// The lines of an answer in chunks, which may lie across their borders.
#[derive(Debug)]
pub struct ChunkedLines<R> {
    reader: R,
    /// What came and is not yet a line.
    rest: Vec<u8>,
    /// Up to where `rest` was searched for the end of a line.
    searched: usize,
    len_max: usize,
}

impl<R: BufRead> ChunkedLines<R> {
    /// Reads chunks from the first one on; a line of more than `len_max` bytes is an error.
    pub fn new(reader: R, len_max: usize) -> Self {
        Self {
            reader,
            rest: Vec::new(),
            searched: 0,
            len_max,
        }
    }

    /// The next line, without its end; `None` after the last chunk.
    ///
    /// # Errors
    /// What the connection answers; [`io::ErrorKind::UnexpectedEof`] where it ended before the answer did.
    pub fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let found = self.rest[self.searched..]
                .iter()
                .position(|it| *it == b'\n');
            if let Some(at) = found {
                let tail = self.rest.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(&mut self.rest, tail);
                line.pop();
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.rest.len();
            if self.rest.len() > self.len_max {
                return Err(io::Error::other("a line is too long"));
            }
            let mut chunk = Vec::new();
            if !read_chunk(&mut self.reader, self.len_max, &mut chunk)? {
                return match self.rest.is_empty() {
                    true => Ok(None),
                    false => Err(cut()),
                };
            }
            self.rest.append(&mut chunk);
        }
    }
}

/// Reads one chunk; `false` for the last one.
fn read_chunk(reader: &mut impl BufRead, len_max: usize, out: &mut Vec<u8>) -> io::Result<bool> {
    let size = chunk_size(reader)?;
    if size == 0 {
        return Ok(false);
    }
    if size > len_max as u64 {
        return Err(io::Error::other("a chunk is too long"));
    }
    let copied = io::copy(&mut reader.take(size), out)?;
    if copied < size {
        return Err(cut());
    }
    end_of_chunk(reader)?;
    Ok(true)
}

fn chunk_size(reader: &mut impl BufRead) -> io::Result<u64> {
    let size = line(reader)?;
    let digits = size.split(';').next().unwrap_or_default().trim();
    u64::from_str_radix(digits, 16)
        .map_err(|_| io::Error::other(format!("`{digits}` is no chunk size")))
}

fn end_of_chunk(reader: &mut impl BufRead) -> io::Result<()> {
    match line(reader)?.is_empty() {
        true => Ok(()),
        false => Err(io::Error::other("a chunk is longer than it says")),
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
    fn lines_come_whole_wherever_chunks_part_them() {
        let bytes = b"3\r\nab\n\r\n2\r\ncd\r\n5\r\ne\n\nf\n\r\n0\r\n\r\n";
        let mut lines = ChunkedLines::new(&bytes[..], 100);
        let mut told = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            told.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(told, ["ab", "cde", "", "f"]);
    }

    #[test]
    fn lines_that_are_cut_or_too_long_are_errors() {
        let first = |bytes: &[u8], len_max| ChunkedLines::new(bytes, len_max).next_line();
        assert!(first(b"2\r\nab\r\n0\r\n\r\n", 100).is_err());
        assert!(first(b"2\r\nab\r\n", 100).is_err());
        assert!(first(b"3\r\nab\n\r\n", 2).is_err());
        assert!(first(b"2\r\nab\r\n2\r\ncd\r\n2\r\nef\r\n", 3).is_err());
        assert!(first(b"0\r\n\r\n", 100).unwrap().is_none());
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
