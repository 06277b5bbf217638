//! Records as lines for people, as JSON, and as comma-separated values.

use std::{
    fmt,
    io::{self, Write},
};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
    forward_to_deserialize_any,
};
use serde_json::Value;

use super::{super::text::printable, Format};
use crate::audit::Record;

/// Prints lines of JSON in a format.
pub(super) struct Printer<W: Write> {
    out: Out<W>,
    titled: bool,
}

enum Out<W: Write> {
    Table(W),
    Json(W),
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write> Printer<W> {
    pub(super) fn new(out: W, format: Format) -> Self {
        let out = match format {
            Format::Table => Out::Table(out),
            Format::Json => Out::Json(out),
            Format::Csv => Out::Csv(Box::new(csv::Writer::from_writer(out))),
        };
        Self { out, titled: false }
    }

    /// Prints whole lines, each a record.
    pub(super) fn print(&mut self, lines: &[u8]) -> io::Result<()> {
        self.title()?;
        let lines = lines.split(|byte| *byte == b'\n');
        for line in lines.filter(|line| !line.is_empty()) {
            match &mut self.out {
                Out::Table(out) => writeln!(out, "{}", row(line))?,
                Out::Json(out) => {
                    out.write_all(line)?;
                    out.write_all(b"\n")?;
                }
                Out::Csv(out) => out.write_record(cells(line)).map_err(io::Error::from)?,
            }
        }
        match &mut self.out {
            Out::Table(out) | Out::Json(out) => out.flush(),
            Out::Csv(out) => out.flush(),
        }
    }

    fn title(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.titled, true) {
            return Ok(());
        }
        match &mut self.out {
            Out::Table(out) => {
                let [number, time, event] = ["RECORD", "TIME", "EVENT"];
                let [session, subject] = ["SESSION", "SUBJECT"];
                writeln!(
                    out,
                    "{number:>8}  {time:<27}  {event:<19}  {session:<16}  {subject:<16}  DETAILS"
                )
            }
            Out::Json(_) => Ok(()),
            Out::Csv(out) => out.write_record(columns()).map_err(io::Error::from),
        }
    }
}

/// The fields of a record in the order of the line, those of later versions too.
#[derive(Debug, PartialEq)]
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

impl Fields {
    fn take(&mut self, name: &str) -> Option<String> {
        let place = self.0.iter().position(|(found, _)| found == name)?;
        Some(plain(&self.0.remove(place).1))
    }
}

/// A value without quotes; the items of a list with commas between them.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A line for people.
fn row(line: &[u8]) -> String {
    let Ok(mut fields) = serde_json::from_slice::<Fields>(line) else {
        return printable(&String::from_utf8_lossy(line));
    };
    let mut column = |name| fields.take(name).unwrap_or_else(|| "-".to_owned());
    let [number, time, event] = ["sequence", "time", "event"].map(&mut column);
    let [session, subject] = ["session", "subject"].map(&mut column);
    let [event, session, subject] = [event, session, subject].map(|text| printable(&text));
    let mut row = format!("{number:>8}  {time:<27}  {event:<19}  {session:<16}  {subject:<16} ");
    for (name, value) in &fields.0 {
        let value = match name.as_str() {
            "detail" => format!("{:?}", plain(value)),
            _ => plain(value),
        };
        row += &format!(" {}={}", printable(name), printable(&value));
    }
    row.truncate(row.trim_end().len());
    row
}

/// The names of the columns: those of a record, as it is declared.
fn columns() -> Vec<&'static str> {
    let names = Record::deserialize(FieldNames).map_or_else(|names| names.0, |_| &[]);
    let mut columns = vec!["sequence"];
    columns.extend(names);
    columns
}

fn cells(line: &[u8]) -> Vec<String> {
    let mut fields = serde_json::from_slice(line).unwrap_or(Fields(Vec::new()));
    columns()
        .into_iter()
        .map(|name| fields.take(name).unwrap_or_default())
        .collect()
}

/// Asked for a structure, it answers with an error that carries the names of its fields.
struct FieldNames;

#[derive(Debug)]
struct Names(&'static [&'static str]);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Names {}

impl de::Error for Names {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(&[])
    }
}

impl<'de> Deserializer<'de> for FieldNames {
    type Error = Names;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Names> {
        Err(Names(fields))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Names> {
        Err(Names(&[]))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::Event,
        clock::WallInstant,
        session::{Principal, SessionId},
    };

    fn line() -> Vec<u8> {
        let principal = Principal {
            issuer: "https://idp.example".to_owned(),
            subject: "eve\n2030-01-01 session_opened admin".to_owned(),
        };
        let mut record = Record::new(WallInstant::from_unix_seconds(0), Event::SessionEnded)
            .of(SessionId::from_u64(1).unwrap(), &principal)
            .because("deadline");
        record.policies = vec!["a".to_owned(), "b".to_owned()];
        record.lateness_us = Some(0);
        let text = serde_json::to_string(&record).unwrap();
        format!("{{\"sequence\":7,{}\n", &text[1..]).into_bytes()
    }

    fn print(format: Format, lines: &[u8]) -> String {
        let mut out = Vec::new();
        Printer::new(&mut out, format).print(lines).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_record_is_one_line_for_people() {
        let text = print(Format::Table, &line());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("  RECORD  TIME "), "{text}");
        assert_eq!(
            lines[1],
            "       7  1970-01-01T00:00:00.000000Z  session_ended        0000000000000001  \
             eve\\n2030-01-01 session_opened admin  issuer=https://idp.example policies=a,b \
             reason=deadline lateness_us=0"
        );
        let broken = print(Format::Table, b"{\"new\":\x1b}\n");
        assert!(broken.ends_with("{\"new\":\\u{1b}}\n"), "{broken}");
    }

    #[test]
    fn comma_separated_values_have_a_column_for_every_field() {
        let text = print(Format::Csv, &line());
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().unwrap().clone();
        assert_eq!(header.get(0), Some("sequence"));
        let row = reader.records().next().unwrap().unwrap();
        let cell = |name| {
            let place = header.iter().position(|column| column == name).unwrap();
            row.get(place).unwrap()
        };
        assert_eq!(cell("sequence"), "7");
        assert_eq!(cell("subject"), "eve\n2030-01-01 session_opened admin");
        assert_eq!(cell("policies"), "a,b");
        assert_eq!((cell("lateness_us"), cell("pid")), ("0", ""));
    }

    #[test]
    fn json_is_printed_as_it_is() {
        assert_eq!(print(Format::Json, &line()).into_bytes(), line());
    }
}
