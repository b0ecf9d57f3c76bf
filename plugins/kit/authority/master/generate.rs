//! `$GENERATE` (BIND's directive): one line made many, with a number in it.

use std::fmt::Write as _;

use super::lexer::{Lexer, Token, Word};
use super::{Place, Wrong, need};

/// Records that one directive makes: a /8 in quarters; more is a typing error or an attack on memory.
const NUMBERS_MAX: u32 = 1 << 22;
/// Characters that a number is padded to.
const WIDTH_MAX: u32 = 255;

/// A directive, read.
pub(super) struct Generate {
    pub(super) place: Place,
    start: u32,
    stop: u32,
    step: u32,
    // The owner, and what stands behind it.
    parts: Vec<Part>,
}

/// A piece of the line to make.
enum Part {
    Text(String),
    Number {
        offset: i64,
        width: usize,
        base: Base,
    },
}

#[derive(Clone, Copy)]
enum Base {
    Decimal,
    Octal,
    Hex { upper: bool },
    // Nibbles from the last one, with dots between.
    Nibbles { upper: bool },
}

impl Generate {
    pub(super) fn read(place: Place, lexer: &mut Lexer<'_>) -> Result<Generate, Wrong> {
        let range = need(lexer, "a range, such as 1-254 or 0-100/2,")?;
        let (start, stop, step) = self::range(&range)?;
        let mut parts = Vec::new();
        let mut words = 0;
        while let Token::Word(word) = lexer.token()? {
            if words > 0 {
                text(&mut parts, " ");
            }
            words += 1;
            let quote = if word.quoted { "\"" } else { "" };
            text(&mut parts, quote);
            template(&word, &mut parts)?;
            text(&mut parts, quote);
        }
        if words < 3 {
            let what =
                "write `$GENERATE 1-9 host$ A 192.0.2.$`: a range, an owner, a type and its data";
            return Err((place, what.into()));
        }
        Ok(Generate {
            place,
            start,
            stop,
            step,
            parts,
        })
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + use<> {
        (self.start..=self.stop).step_by(self.step as usize)
    }

    pub(super) fn line(&self, number: u32) -> Result<String, Wrong> {
        let mut line = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Number {
                    offset,
                    width,
                    base,
                } => {
                    let value = i64::from(number) + offset;
                    let Ok(value) = u64::try_from(value) else {
                        let what =
                            format!("the offset makes {value} of {number}; it may not be negative");
                        return Err((self.place, what));
                    };
                    // Writing into a String cannot fail.
                    match base {
                        Base::Decimal => write!(line, "{value:0width$}").ok(),
                        Base::Octal => write!(line, "{value:0width$o}").ok(),
                        Base::Hex { upper: true } => write!(line, "{value:0width$X}").ok(),
                        Base::Hex { upper: false } => write!(line, "{value:0width$x}").ok(),
                        Base::Nibbles { upper } => {
                            nibbles(&mut line, value, *width, *upper);
                            None
                        }
                    };
                }
            }
        }
        Ok(line)
    }
}

fn nibbles(line: &mut String, value: u64, width: usize, upper: bool) {
    let (mut rest, mut written) = (value, 0);
    loop {
        let digit = char::from_digit((rest & 15) as u32, 16).unwrap_or('0');
        line.push(if upper {
            digit.to_ascii_uppercase()
        } else {
            digit
        });
        rest >>= 4;
        // Each nibble has its dot; BIND counts both.
        written += 2;
        if rest == 0 && written >= width {
            return;
        }
        line.push('.');
    }
}

fn range(word: &Word<'_>) -> Result<(u32, u32, u32), Wrong> {
    let wrong = |what: &str| (word.place, format!("{what}, got {}", word.show()));
    let text = std::str::from_utf8(word.text).unwrap_or_default();
    let (range, step) = text.split_once('/').unwrap_or((text, "1"));
    let number = |text: &str| text.parse::<u32>().ok();
    let parsed = range
        .split_once('-')
        .and_then(|(start, stop)| Some((number(start)?, number(stop)?, number(step)?)));
    let Some((start, stop, step)) = parsed else {
        return Err(wrong("a range is written 1-254 or 0-100/2"));
    };
    if step == 0 || start > stop {
        return Err(wrong("a range goes up, in steps of 1 or more"));
    }
    if (stop - start) / step >= NUMBERS_MAX {
        return Err((
            word.place,
            format!("more than {NUMBERS_MAX} records of one $GENERATE; write several"),
        ));
    }
    Ok((start, stop, step))
}

fn text(parts: &mut Vec<Part>, more: &str) {
    match parts.last_mut() {
        Some(Part::Text(text)) => text.push_str(more),
        _ => parts.push(Part::Text(more.to_owned())),
    }
}

/// Cuts a word at its `$`, `${OFFSET[,WIDTH[,BASE]]}`; `$$` and `\$` are a dollar.
fn template(word: &Word<'_>, parts: &mut Vec<Part>) -> Result<(), Wrong> {
    let wrong = |what: &str| (word.place, format!("{what}, got {}", word.show()));
    let whole = std::str::from_utf8(word.text).map_err(|_| wrong("write UTF-8"))?;
    let mut rest = whole;
    while let Some(at) = rest.find(['$', '\\']) {
        text(parts, &rest[..at]);
        rest = &rest[at..];
        if let Some(behind) = rest.strip_prefix("\\$").or(rest.strip_prefix("$$")) {
            text(parts, "$");
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix('\\') {
            let len = behind.chars().next().map_or(0, char::len_utf8);
            text(parts, &rest[..1 + len]);
            rest = &behind[len..];
        } else if let Some(behind) = rest.strip_prefix("${") {
            let (inside, behind) = behind
                .split_once('}')
                .ok_or_else(|| wrong("`${` is never closed"))?;
            parts.push(number(inside).ok_or_else(|| {
                wrong("write `${OFFSET,WIDTH,BASE}`, BASE one of d, o, x, X, n, N")
            })?);
            rest = behind;
        } else {
            parts.push(Part::Number {
                offset: 0,
                width: 0,
                base: Base::Decimal,
            });
            rest = &rest[1..];
        }
    }
    text(parts, rest);
    Ok(())
}

fn number(inside: &str) -> Option<Part> {
    let mut fields = inside.split(',');
    let offset = fields.next()?.parse::<i32>().ok()?;
    let width = fields.next().unwrap_or("0").parse::<u32>().ok()?;
    let base = match fields.next().unwrap_or("d") {
        "d" => Base::Decimal,
        "o" => Base::Octal,
        "x" => Base::Hex { upper: false },
        "X" => Base::Hex { upper: true },
        "n" => Base::Nibbles { upper: false },
        "N" => Base::Nibbles { upper: true },
        _ => return None,
    };
    (width <= WIDTH_MAX && fields.next().is_none()).then_some(Part::Number {
        offset: i64::from(offset),
        width: width as usize,
        base,
    })
}
