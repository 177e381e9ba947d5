//! Errors of calls, as they travel: what a program can look at stays what it is, but an error of the user's own type becomes its
//! text, since only its process knows the type.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Decoder, Encode, Encoder, Rest, Unread, WireError};
use crate::caught;
use crate::current;
use crate::entry::EntryInfo;
use crate::error::{CallError, Failed, NoElement, NotNow, Panicked};

/// Causes of an error that are told elsewhere, and it: what an error says is the user's code, which may say anything without end.
const MOST_CAUSES: usize = 16;

/// What an outcome begins with.
mod begins {
    pub(super) const ERROR: u8 = 0;
    pub(super) const VALUE: u8 = 1;
    /// Which ends of promises are in the value comes first, for who drops it unread.
    pub(super) const VALUE_WITH_ENDS: u8 = 2;
}

/// A `CallError` in transit.
#[derive(Serialize, Deserialize)]
enum Form {
    Panicked(Method, String, String),
    Failed(Method, Vec<String>),
    NoElement { chare: String, element: String, bounds: String },
    Poisoned(Method, String, String),
    NotNow(Method, String),
    BrokenPromise,
    Fulfilled(u64),
    Reduction(String),
    Refused(String),
    Dropped,
    Ended,
}

/// A method, and the element that it ran on.
#[derive(Serialize, Deserialize)]
struct Method {
    chare: String,
    name: String,
    file: String,
    line: u32,
    element: String,
}

impl Method {
    fn new(entry: &EntryInfo, element: &str) -> Self {
        let EntryInfo { chare, name, file, line } = *entry;
        Method {
            chare: chare.to_owned(),
            name: name.to_owned(),
            file: file.to_owned(),
            line,
            element: element.to_owned(),
        }
    }

    fn of_panic(panicked: &Panicked) -> (Self, String, String) {
        let method = Method::new(panicked.entry, &panicked.element);
        (method, panicked.message.clone(), panicked.location.clone())
    }

    fn into_panic(self, message: String, location: String) -> Arc<Panicked> {
        let (entry, element) = self.into_entry();
        Arc::new(Panicked { entry, element, message, location })
    }

    fn into_entry(self) -> (&'static EntryInfo, String) {
        let Method { chare, name, file, line, element } = self;
        (kept_entry(chare, name, file, line), element)
    }
}

/// Names of methods that other processes have told of. A program has few, and they are kept for ever.
#[derive(Default)]
struct Names {
    texts: HashSet<&'static str>,
    entries: HashSet<&'static EntryInfo>,
}

fn names() -> std::sync::MutexGuard<'static, Names> {
    static NAMES: OnceLock<Mutex<Names>> = OnceLock::new();
    NAMES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The text, for ever.
pub(super) fn kept(text: String) -> &'static str {
    let mut names = names();
    if let Some(known) = names.texts.get(text.as_str()) {
        return known;
    }
    let text: &'static str = Box::leak(text.into_boxed_str());
    names.texts.insert(text);
    text
}

/// The method of another process, for ever.
pub(crate) fn kept_entry(chare: String, name: String, file: String, line: u32) -> &'static EntryInfo {
    let entry = EntryInfo { chare: kept(chare), name: kept(name), file: kept(file), line };
    let mut names = names();
    if let Some(known) = names.entries.get(&entry) {
        return known;
    }
    let entry: &'static EntryInfo = Box::leak(Box::new(entry));
    names.entries.insert(entry);
    entry
}

/// An error of another process: its text, and those of its causes.
#[derive(Debug)]
struct FromElsewhere {
    text: String,
    cause: Option<Box<FromElsewhere>>,
}

impl fmt::Display for FromElsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for FromElsewhere {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

/// The text of an error, and those of its causes.
fn texts(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source.filter(|_| texts.len() < MOST_CAUSES) {
        texts.push(cause.to_string());
        source = cause.source();
    }
    texts
}

impl Encoder {
    /// Adds an error.
    pub(crate) fn put_error(&mut self, error: &CallError) {
        let form = match error {
            CallError::Panicked(panicked) => {
                let (method, message, location) = Method::of_panic(panicked);
                Form::Panicked(method, message, location)
            }
            CallError::Failed(failed) => {
                let Failed { entry, element, error } = &**failed;
                Form::Failed(Method::new(entry, element), texts(&**error))
            }
            CallError::NoElement(missing) => {
                let NoElement { chare, element, bounds } = &**missing;
                Form::NoElement {
                    chare: (*chare).to_owned(),
                    element: element.clone(),
                    bounds: bounds.clone(),
                }
            }
            CallError::Poisoned(panicked) => {
                let (method, message, location) = Method::of_panic(panicked);
                Form::Poisoned(method, message, location)
            }
            CallError::NotNow(not_now) => {
                let NotNow { entry, element, why } = &**not_now;
                Form::NotNow(Method::new(entry, element), why.to_string())
            }
            CallError::BrokenPromise => Form::BrokenPromise,
            CallError::Fulfilled { expected } => Form::Fulfilled(*expected as u64),
            CallError::Reduction(text) => Form::Reduction(text.to_string()),
            CallError::Refused(text) => Form::Refused(text.to_string()),
            CallError::Dropped => Form::Dropped,
            CallError::Ended => Form::Ended,
        };
        self.put_own(&form);
    }

    /// Adds an outcome. A value that cannot leave becomes an error.
    pub(crate) fn put_outcome<R>(
        &mut self,
        outcome: Result<R, CallError>,
        encode: Encode<R>,
    ) -> Option<CallError> {
        let begin = self.mark();
        let error = match outcome {
            Ok(value) => {
                self.put_byte(begins::VALUE);
                // Serialisation is code of the user's.
                let encoded = current::on_pe("encoding a value", |pe| {
                    pe.encode_part(|| match caught::catch(pe, || encode(value, self)) {
                        Ok(encoded) => encoded.map_err(|why| why.to_string()),
                        Err(panic) => Err(panic.to_string()),
                    })
                });
                let why = match encoded {
                    Ok(ends) if ends.is_empty() => return None,
                    Ok(ends) => {
                        let value = self.bytes.split_off(begin.bytes + 1);
                        self.bytes[begin.bytes] = begins::VALUE_WITH_ENDS;
                        self.put_own(&ends);
                        self.bytes.extend(value);
                        ends.go_on();
                        return None;
                    }
                    Err(why) => why,
                };
                self.rewind(begin);
                CallError::Refused(format!("the value was not sent to another process: {why}").into())
            }
            Err(error) => error,
        };
        self.put_byte(begins::ERROR);
        self.put_error(&error);
        Some(error)
    }
}

impl Decoder<'_> {
    /// Takes an outcome.
    pub(crate) fn take_outcome<R>(
        &mut self,
        decode: impl FnOnce(&mut Self) -> Result<R, WireError>,
    ) -> Result<Result<R, CallError>, WireError> {
        Ok(match self.take_begin_of_outcome()? {
            Some(ends) => {
                ends.go_on();
                Ok(decode(self)?)
            }
            None => Err(self.take_error()?),
        })
    }

    /// Takes an outcome at the end of a message, which is read where its type is known: whether it is a value, and that or the error.
    pub(crate) fn take_outcome_as_rest(&mut self) -> Result<(bool, Rest), WireError> {
        let ends = self.take_begin_of_outcome()?;
        let is_value = ends.is_some();
        Ok((is_value, Rest { ends: ends.unwrap_or_default(), ..self.take_rest() }))
    }

    /// The ends of promises in an outcome, if it is a value.
    fn take_begin_of_outcome(&mut self) -> Result<Option<Unread>, WireError> {
        match self.take_byte()? {
            begins::ERROR => Ok(None),
            begins::VALUE => Ok(Some(Unread::default())),
            begins::VALUE_WITH_ENDS => self.take().map(Some),
            other => Err(WireError::new(format!("there is no kind {other} of outcomes"))),
        }
    }

    /// Takes an error.
    pub(crate) fn take_error(&mut self) -> Result<CallError, WireError> {
        Ok(match self.take::<Form>()? {
            Form::Panicked(method, message, location) => {
                CallError::Panicked(method.into_panic(message, location))
            }
            Form::Failed(method, texts) if texts.len() > MOST_CAUSES => {
                let (entry, _) = method.into_entry();
                return Err(WireError::new(format!(
                    "an error of {} with {} causes",
                    entry.name,
                    texts.len()
                )));
            }
            Form::Failed(method, texts) => {
                let chain = |cause, text| Some(Box::new(FromElsewhere { text, cause }));
                let error = texts.into_iter().rev().fold(None, chain);
                let error = error.ok_or_else(|| WireError::new("an error without a text"))?;
                let (entry, element) = method.into_entry();
                CallError::Failed(Arc::new(Failed { entry, element, error }))
            }
            Form::NoElement { chare, element, bounds } => {
                CallError::NoElement(Arc::new(NoElement { chare: kept(chare), element, bounds }))
            }
            Form::Poisoned(method, message, location) => {
                CallError::Poisoned(method.into_panic(message, location))
            }
            // Why it cannot run now is about the other process.
            Form::NotNow(Method { chare, name, element, .. }, why) => {
                CallError::Refused(format!("{chare}{element}.{name} cannot run at once: {why}").into())
            }
            Form::BrokenPromise => CallError::BrokenPromise,
            Form::Fulfilled(expected) => CallError::Fulfilled { expected: expected as usize },
            Form::Reduction(text) => CallError::Reduction(text.into()),
            Form::Refused(text) => CallError::Refused(text.into()),
            Form::Dropped => CallError::Dropped,
            Form::Ended => CallError::Ended,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static ENTRY: EntryInfo = EntryInfo { chare: "Account", name: "withdraw", file: "bank.rs", line: 7 };

    fn there_and_back(error: &CallError) -> CallError {
        let mut encoder = Encoder::default();
        encoder.put_error(error);
        let mut decoder = Decoder::new(&encoder.bytes, encoder.buffers);
        let back = decoder.take_error().expect("it was just encoded");
        decoder.end().expect("nothing is left");
        back
    }

    #[test]
    fn errors_say_the_same_elsewhere() {
        let panicked = || {
            let (element, message) = ("[3]".to_owned(), "no money".to_owned());
            Arc::new(Panicked { entry: &ENTRY, element, message, location: "bank.rs:9:5".to_owned() })
        };
        let cause = FromElsewhere { text: "disk".to_owned(), cause: None };
        let error = FromElsewhere { text: "file".to_owned(), cause: Some(Box::new(cause)) };
        for error in [
            CallError::Panicked(panicked()),
            CallError::Poisoned(panicked()),
            CallError::Failed(Arc::new(Failed { entry: &ENTRY, element: "[1]".into(), error: error.into() })),
            CallError::NoElement(Arc::new(NoElement {
                chare: "Account",
                element: "[9]".into(),
                bounds: "8".into(),
            })),
            CallError::BrokenPromise,
            CallError::Fulfilled { expected: 3 },
            CallError::Reduction("they differ".into()),
            CallError::Refused("no".into()),
            CallError::Dropped,
            CallError::Ended,
        ] {
            let back = there_and_back(&error);
            assert_eq!(back.to_string(), error.to_string());
            assert_eq!(std::mem::discriminant(&back), std::mem::discriminant(&error));
        }
    }

    #[test]
    fn a_name_is_kept_once() {
        let place = |error: CallError| match error {
            CallError::Panicked(panicked) => std::ptr::from_ref(panicked.entry).addr(),
            other => unreachable!("{other}"),
        };
        let panicked = Panicked {
            entry: &ENTRY,
            element: String::new(),
            message: String::new(),
            location: String::new(),
        };
        let error = CallError::Panicked(Arc::new(panicked));
        assert_eq!(place(there_and_back(&error)), place(there_and_back(&error)));
    }

    #[test]
    fn nonsense_is_an_error() {
        let mut encoder = Encoder::default();
        encoder.put_error(&CallError::Refused("a reason".into()));
        for len in 0..encoder.bytes.len() {
            assert!(Decoder::new(&encoder.bytes[..len], Vec::new()).take_error().is_err(), "{len}");
        }
        assert!(Decoder::new(&[200], Vec::new()).take_error().is_err());
    }
}
