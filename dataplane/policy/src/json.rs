//! JSON (RFC 8259) as a tree with lines. Several documents may follow each other, with or without `---` between.

use crate::node::{Budget, Entry, Limits, MapBuilder, Node, TextError, Value};

pub(crate) fn parse(text: &str, limits: Limits) -> Result<Vec<Node>, TextError> {
    let mut reader = Reader {
        text,
        at: 0,
        line: 1,
        budget: Budget::new(limits),
    };
    let mut documents = Vec::new();
    loop {
        reader.skip_space();
        if reader.at_line_start() && reader.rest().starts_with("---") {
            reader.at += 3;
            continue;
        }
        if reader.rest().is_empty() {
            return Ok(documents);
        }
        documents.push(reader.value(1)?);
    }
}

struct Reader<'t> {
    text: &'t str,
    /// Always on a character's boundary.
    at: usize,
    line: u32,
    budget: Budget,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn at_line_start(&self) -> bool {
        self.at == 0 || self.text.as_bytes()[self.at - 1] == b'\n'
    }

    fn skip_space(&mut self) {
        while let Some(byte @ (b' ' | b'\t' | b'\n' | b'\r')) = self.peek() {
            self.at += 1;
            self.line = self.line.saturating_add(u32::from(byte == b'\n'));
        }
    }

    fn error<T>(&self, message: &str) -> Result<T, TextError> {
        Err(TextError::syntax(
            self.line,
            format!("not valid JSON: {message}"),
        ))
    }

    /// Recursion is bounded by the budget's depth.
    fn value(&mut self, depth: usize) -> Result<Node, TextError> {
        self.budget.take(depth, self.line)?;
        let line = self.line;
        let value = match self.peek() {
            Some(b'{') => self.map(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Value::Text(self.text()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(_) => self.word()?,
            None => return self.error("the text ends in the middle of a value"),
        };
        Ok(Node { line, value })
    }

    fn map(&mut self, depth: usize) -> Result<Value, TextError> {
        let mut map = MapBuilder::default();
        self.at += 1;
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(map.finish());
        }
        loop {
            self.skip_space();
            let line = self.line;
            if self.peek() != Some(b'"') {
                return self.error("a key in double quotes is expected here");
            }
            let key = self.text()?;
            map.check(&key, line)?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return self.error("a colon is expected behind the key");
            }
            self.at += 1;
            self.skip_space();
            let node = self.value(depth + 1)?;
            map.push(Entry { key, line, node });
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(map.finish());
                }
                _ => return self.error("a comma or `}` is expected here"),
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, TextError> {
        let mut items = Vec::new();
        self.at += 1;
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::List(items));
        }
        loop {
            self.skip_space();
            items.push(self.value(depth + 1)?);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::List(items));
                }
                _ => return self.error("a comma or `]` is expected here"),
            }
        }
    }

    fn word(&mut self) -> Result<Value, TextError> {
        let words = [
            ("true", Value::Bool(true)),
            ("false", Value::Bool(false)),
            ("null", Value::Null),
        ];
        for (word, value) in words {
            if self.rest().starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        self.error("a value is expected here")
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<Value, TextError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let leads_with_zero = self.peek() == Some(b'0');
        let digits = self.digits();
        if digits == 0 || (leads_with_zero && digits > 1) {
            return self.error("a number has no leading zeros, and digits");
        }
        let mut is_whole = true;
        if self.peek() == Some(b'.') {
            self.at += 1;
            is_whole = false;
            if self.digits() == 0 {
                return self.error("digits are expected behind the point");
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            is_whole = false;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return self.error("digits are expected in the exponent");
            }
        }
        let text = &self.text[start..self.at];
        if let (true, Ok(number)) = (is_whole, text.parse()) {
            return Ok(Value::Int(number));
        }
        match text.parse() {
            Ok(number) => Ok(Value::Float(number)),
            Err(_) => self.error("that is no number"),
        }
    }

    fn text(&mut self) -> Result<Box<str>, TextError> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let start = self.at;
            while !matches!(self.peek(), None | Some(b'"' | b'\\' | 0..=0x1f)) {
                self.at += 1;
            }
            text.push_str(&self.text[start..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text.into_boxed_str());
                }
                Some(b'\\') => text.push(self.escape()?),
                Some(_) => {
                    return self.error("a control character in a text must be written as \\u00XX");
                }
                None => return self.error("the text ends inside quotes"),
            }
        }
    }

    fn escape(&mut self) -> Result<char, TextError> {
        self.at += 1;
        let letter = self.peek();
        // A letter of more bytes is no escape, and the error leaves `at` alone.
        let char = match letter {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.escaped_code_point();
            }
            _ => return self.error("an unknown escape: write \\\\ for a backslash"),
        };
        self.at += 1;
        Ok(char)
    }

    fn escaped_code_point(&mut self) -> Result<char, TextError> {
        let first = self.hex4()?;
        let code = match first {
            0xd800..=0xdbff => {
                if !self.rest().starts_with("\\u") {
                    return self.error("half of a surrogate pair");
                }
                self.at += 2;
                let second = self.hex4()?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return self.error("half of a surrogate pair");
                }
                0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            code => code,
        };
        match char::from_u32(code) {
            Some(char) => Ok(char),
            None => self.error("half of a surrogate pair"),
        }
    }

    fn hex4(&mut self) -> Result<u32, TextError> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let number = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let Some(number) = number else {
            return self.error("four hex digits are expected behind \\u");
        };
        self.at += 4;
        Ok(number)
    }
}
