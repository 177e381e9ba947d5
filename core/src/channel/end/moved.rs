//! Ends of chares that move to another process.
//!
//! An end is encoded with the values that are in it. Where it arrives, perhaps nobody has opened a channel of that type, so that nobody
//! can decode them: then it is an end for [`Encoded`] values, and sleeps. It takes values, credit and news like any other, and gives
//! values to peers; it is roused, into an end of the type, when its chare opens the channel, or a value of the type comes.
//!
//! Invariant: an end for `Encoded` values is opened by nobody.

use std::any::{Any, TypeId, type_name};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{AnyEnd, Defect, End, StreamId};
use crate::cell::ChareRef;
use crate::channel::across::{self, name_of};
use crate::channel::table::{Entry, Told, Uprooted};
use crate::ids::ChareId;
use crate::scheduler::pe::Pe;
use crate::wire::{Decoder, Encoder, Rest, Stays, Wire, WireError};

/// A value whose type nobody in this process is known to receive.
pub(in crate::channel) struct Encoded {
    /// The type's.
    pub(in crate::channel) name: u64,
    pub(in crate::channel) rest: Rest,
}

impl Serialize for Encoded {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it is encoded already"))
    }
}

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("it stays encoded"))
    }
}

/// What an end knows besides its values, on its way.
#[derive(Serialize, Deserialize)]
struct Form {
    next_in: u64,
    next_out: u64,
    credit: u32,
    read: u16,
    opened: bool,
    going: StreamId,
    coming: StreamId,
    earlier_unread: usize,
    defect: Kind,
    unread: usize,
    early: usize,
    backlog: usize,
}

/// Which defect. The error stands behind the form.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Kind {
    None,
    WrongType,
    Peer,
    Ended,
}

/// The reader of an end of a chare that has come, where the type of its values is known.
pub(in crate::channel) type Rouse = fn(End<Encoded>) -> Result<(Box<dyn AnyEnd>, TypeId), WireError>;

fn put_value<T: Wire>(value: &T, to: &mut Encoder) -> Result<(), Stays> {
    match (value as &dyn Any).downcast_ref::<Encoded>() {
        Some(Encoded { name, rest }) => {
            to.put_own(name);
            to.put_rest_to_move(rest);
            Ok(())
        }
        None => {
            to.put_own(&name_of::<T>());
            to.put_as_rest(value)
        }
    }
}

fn take_value(from: &mut Decoder<'_>) -> Result<Encoded, WireError> {
    Ok(Encoded { name: from.take()?, rest: from.take_whole_rest()? })
}

impl<T: Wire> End<T> {
    /// Encodes it. Runs code of the user's.
    pub(super) fn put(&self, to: &mut Encoder) -> Result<(), Stays> {
        let (unread, backlog) = self.queued();
        let slow = self.slow.as_deref();
        let defect = slow.and_then(|slow| slow.defect.as_ref());
        to.put_own(&name_of::<T>());
        to.put_own(&Form {
            next_in: self.next_in,
            next_out: self.next_out,
            credit: self.credit,
            read: self.read,
            opened: self.opened,
            going: AnyEnd::going(self),
            coming: AnyEnd::coming(self),
            earlier_unread: slow.map_or(0, |slow| slow.streams.earlier_unread),
            defect: match defect {
                None => Kind::None,
                Some(Defect::WrongType(_)) => Kind::WrongType,
                Some(Defect::Peer(_)) => Kind::Peer,
                Some(Defect::Ended(_)) => Kind::Ended,
            },
            unread,
            early: slow.map_or(0, |slow| slow.early.len()),
            backlog,
        });
        if let Some(Defect::Peer(error) | Defect::Ended(error)) = defect {
            to.put_error(error);
        }
        let near = self.first.iter().chain(&self.second);
        near.chain(slow.into_iter().flat_map(|slow| &slow.unread))
            .try_for_each(|value| put_value(value, to))?;
        let Some(slow) = slow else { return Ok(()) };
        slow.early.iter().try_for_each(|(number, value)| {
            to.put_own(number);
            put_value(value, to)
        })?;
        slow.backlog.iter().try_for_each(|value| put_value(value, to))
    }

    /// An end without values that goes on where another one was.
    fn resume(form: &Form, defect: Option<Defect>) -> Self {
        let mut end = End::new(None);
        (end.next_in, end.next_out, end.credit) = (form.next_in, form.next_out, form.credit);
        (end.read, end.opened) = (form.read, form.opened);
        let streams = (form.going, form.coming, form.earlier_unread);
        if streams != (StreamId::default(), StreamId::default(), 0) {
            let streams = end.streams();
            (streams.going, streams.coming, streams.earlier_unread) =
                (form.going, form.coming, form.earlier_unread);
        }
        if defect.is_some() {
            end.slow().defect = defect;
        }
        end
    }
}

impl End<Encoded> {
    /// Takes out its values, whose bytes have left.
    pub(super) fn let_go_on(&mut self) {
        std::iter::from_fn(|| self.pop()).for_each(|value| value.rest.go_on());
        if let Some(slow) = &mut self.slow {
            let early = std::mem::take(&mut slow.early).into_values();
            early.chain(std::mem::take(&mut slow.backlog)).for_each(|value| value.rest.go_on());
        }
    }

    /// The end, and the name of its type.
    fn take_from(from: &mut Decoder<'_>) -> Result<(u64, Self), WireError> {
        let name = from.take()?;
        let form: Form = from.take()?;
        let defect = match form.defect {
            Kind::None => None,
            Kind::WrongType => Some(Defect::WrongType("another type")),
            Kind::Peer => Some(Defect::Peer(from.take_error()?)),
            Kind::Ended => Some(Defect::Ended(from.take_error()?)),
        };
        let mut end = End::resume(&form, defect);
        for _ in 0..form.unread {
            end.push(take_value(from)?);
        }
        for _ in 0..form.early {
            let number = from.take()?;
            end.slow().early.insert(number, take_value(from)?);
        }
        for _ in 0..form.backlog {
            let value = take_value(from)?;
            end.slow().backlog.push_back(value);
        }
        end.note_slow();
        Ok((name, end))
    }

    /// The same end with its values decoded. Runs code of the user's.
    pub(in crate::channel) fn decoded<T: Wire>(mut self) -> Result<End<T>, WireError> {
        let decode = |Encoded { name, rest }: Encoded| {
            if name == name_of::<T>() {
                return rest.decode(|rest| rest.take_value());
            }
            Err(WireError::new(format!("a channel has values of another type than `{}`", type_name::<T>())))
        };
        let form = Form {
            next_in: self.next_in,
            next_out: self.next_out,
            credit: self.credit,
            read: self.read,
            opened: self.opened,
            going: AnyEnd::going(&self),
            coming: AnyEnd::coming(&self),
            earlier_unread: self.slow.as_ref().map_or(0, |slow| slow.streams.earlier_unread),
            defect: Kind::None,
            unread: 0,
            early: 0,
            backlog: 0,
        };
        let mut end = End::resume(&form, self.defect());
        while let Some(value) = self.pop() {
            end.push(decode(value)?);
        }
        if let Some(slow) = self.slow.take() {
            for (number, value) in slow.early {
                end.slow().early.insert(number, decode(value)?);
            }
            for value in slow.backlog {
                end.slow().backlog.push_back(decode(value)?);
            }
        }
        end.note_slow();
        Ok(end)
    }
}

/// As [`Rouse`] says, for values of type `T`.
pub(in crate::channel) fn rouse_as<T: Wire>(
    end: End<Encoded>,
) -> Result<(Box<dyn AnyEnd>, TypeId), WireError> {
    Ok((Box::new(end.decoded::<T>()?), TypeId::of::<T>()))
}

/// Makes an end that sleeps one for values of type `T`. If it has values of another type, these are lost, and it says so.
#[cold]
pub(in crate::channel) fn rouse<T: Wire>(pe: &Pe, chare: ChareRef, entry: &Entry) {
    let Some(asleep) = pe.ends.remove(entry) else { return };
    let Ok(asleep) = asleep.into_any().downcast::<End<Encoded>>() else { return };
    let (opened, going) = (asleep.opened, AnyEnd::going(&*asleep));
    let end = asleep.decoded::<T>().unwrap_or_else(|_| {
        let mut end = End::new(None);
        end.begin(going);
        end.opened = opened;
        end.slow().defect = Some(Defect::WrongType("another type"));
        end
    });
    let key = pe.ends.of::<T>().plant(end);
    chare.extra(|extra| extra.channels.retype::<T>(entry, key));
}

/// Encodes the channels of a chare whose ends have been uprooted. Runs code of the user's.
pub(crate) fn encode(chare: ChareRef, ends: &Uprooted, to: &mut Encoder) -> Result<(), Stays> {
    let names = chare.extra_if_any(|extra| {
        let channels = &extra.channels;
        (!channels.is_new()).then(|| {
            let (restarts, has_retired) = channels.history();
            to.put_own(&true);
            to.put_own(&(restarts, has_retired, &channels.told));
            channels.iter().map(|entry| (entry.peer, entry.tag)).collect::<Vec<_>>()
        })
    });
    let Some(names) = names.flatten() else {
        to.put_own(&false);
        return Ok(());
    };
    to.put_own(&names.len());
    names.iter().zip(ends.iter()).try_for_each(|(name, end)| {
        to.put_own(name);
        end.encode(to)
    })
}

/// The channels of a chare that has come from another process; what comes back is planted where it arrives.
pub(crate) fn decode(pe: &Pe, chare: ChareRef, from: &mut Decoder<'_>) -> Result<Uprooted, WireError> {
    let mut ends = Vec::new();
    if !from.take()? {
        return Ok(Uprooted::new(ends));
    }
    let (restarts, has_retired, told): (u64, bool, Vec<Told>) = from.take()?;
    // The end of the chare counts one more.
    if restarts == u64::MAX {
        return Err(WireError::new("channels that have begun anew more often than can be counted"));
    }
    let mut entries = Vec::new();
    for _ in 0..from.take::<usize>()? {
        let (peer, tag): (ChareId, u64) = from.take()?;
        let (name, end) = End::take_from(from)?;
        let (end, value) = match across::rouse_of(pe, name) {
            Some(rouse) => rouse(end)?,
            None => (Box::new(end) as Box<dyn AnyEnd>, TypeId::of::<Encoded>()),
        };
        entries.push(Entry::to_be_planted(peer, tag, value));
        ends.push(end);
    }
    chare.extra(|extra| extra.channels.restore(entries, restarts, has_retired, told));
    Ok(Uprooted::new(ends))
}
