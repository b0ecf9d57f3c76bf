//! Words of a master file (RFC 1035 §5.1): blanks, comments, parentheses, quotes. No copies: a word is a part of the text.

use super::Place;

/// One word.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Word<'t> {
    /// As it stands there, without its quotes; escapes are not read yet.
    pub(in super::super) text: &'t [u8],
    /// Whether it stood in quotes.
    pub(in super::super) quoted: bool,
    /// Where.
    pub(in super::super) place: Place,
}

impl Word<'_> {
    /// For messages.
    pub(in super::super) fn show(&self) -> String {
        let text = String::from_utf8_lossy(self.text);
        match text.char_indices().nth(40) {
            Some((end, _)) => format!("`{}…`", &text[..end]),
            None => format!("`{text}`"),
        }
    }
}

/// What comes next.
pub(super) enum Token<'t> {
    Word(Word<'t>),
    /// The end of a line outside parentheses, or of the text.
    End,
}

/// Reads words.
pub(super) struct Lexer<'t> {
    text: &'t [u8],
    at: usize,
    line: u32,
    line_start: usize,
    // Where the outermost parenthesis was opened, and how many are open.
    open: Option<(Place, u32)>,
}

/// Whether an octet ends a word.
const ENDS_WORD: [bool; 256] = {
    let mut ends = [false; 256];
    let marks = b" \t\r\n;()\"";
    let mut at = 0;
    while at < marks.len() {
        ends[marks[at] as usize] = true;
        at += 1;
    }
    ends
};

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t [u8]) -> Lexer<'t> {
        Lexer {
            text,
            at: 0,
            line: 1,
            line_start: 0,
            open: None,
        }
    }

    /// Whether there is nothing more.
    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    /// Whether the line, at whose start we are, begins with a blank: its owner is the one before (RFC 1035 §5.1).
    pub(super) fn starts_blank(&self) -> bool {
        matches!(self.text.get(self.at), Some(b' ' | b'\t'))
    }

    pub(super) fn place(&self) -> Place {
        Place {
            line: self.line,
            column: (self.at - self.line_start + 1) as u32,
        }
    }

    fn newline(&mut self) {
        self.at += 1;
        self.line += 1;
        self.line_start = self.at;
    }

    /// The next word, or the end of the entry.
    pub(super) fn token(&mut self) -> Result<Token<'t>, (Place, String)> {
        loop {
            let Some(octet) = self.text.get(self.at) else {
                return match self.open.take() {
                    Some((place, _)) => {
                        Err((place, "a parenthesis is never closed; write `)`".into()))
                    }
                    None => Ok(Token::End),
                };
            };
            match octet {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\n' => {
                    self.newline();
                    if self.open.is_none() {
                        return Ok(Token::End);
                    }
                }
                b';' => {
                    let rest = self.text.get(self.at..).unwrap_or_default();
                    let end = rest.iter().position(|octet| *octet == b'\n');
                    self.at += end.unwrap_or(rest.len());
                }
                b'(' => {
                    let place = self.place();
                    let open = self.open.get_or_insert((place, 0));
                    open.1 += 1;
                    self.at += 1;
                }
                b')' => {
                    let place = self.place();
                    self.at += 1;
                    match &mut self.open {
                        None => {
                            return Err((place, "`)` without `(` before it; leave it out".into()));
                        }
                        Some((_, 1)) => self.open = None,
                        Some((_, count)) => *count -= 1,
                    }
                }
                b'"' => return self.quoted().map(Token::Word),
                _ => return Ok(Token::Word(self.word())),
            }
        }
    }

    fn word(&mut self) -> Word<'t> {
        let (start, place) = (self.at, self.place());
        while let Some(octet) = self.text.get(self.at) {
            if ENDS_WORD[usize::from(*octet)] {
                break;
            }
            // What stands behind a backslash is part of the word, but for the end of the line.
            let escapes =
                *octet == b'\\' && self.text.get(self.at + 1).is_some_and(|b| *b != b'\n');
            self.at += if escapes { 2 } else { 1 };
        }
        Word {
            text: self.text.get(start..self.at).unwrap_or_default(),
            quoted: false,
            place,
        }
    }

    fn quoted(&mut self) -> Result<Word<'t>, (Place, String)> {
        let place = self.place();
        self.at += 1;
        let start = self.at;
        loop {
            match self.text.get(self.at) {
                Some(b'"') => break,
                Some(b'\n') => self.newline(),
                Some(b'\\') if self.text.get(self.at + 1).is_some_and(|b| *b != b'\n') => {
                    self.at += 2;
                }
                Some(_) => self.at += 1,
                None => return Err((place, "a quote is never closed; write `\"`".into())),
            }
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        self.at += 1;
        Ok(Word {
            text,
            quoted: true,
            place,
        })
    }
}
