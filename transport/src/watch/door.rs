//! Where a process waits for the one before it, among whom strangers may be.
//!
//! Invariant: a look at the door waits for nobody. Who has said only a part of what is to be said keeps a place, until so many others have come that
//! there is none left; and who is late is late, whoever else stands there.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::{TcpListener, TcpStream};

/// So many may stand at the door and have not said yet who they are; if more come, who has stood there longest goes.
const PLACES: usize = 16;

/// A listener, and who has connected.
pub(super) struct Door {
    listener: TcpListener,
    /// What the one that is awaited says first.
    secret: [u8; 8],
    callers: VecDeque<Caller>,
}

impl Door {
    /// The listener does not block.
    pub(super) fn new(listener: TcpListener, secret: u64) -> Door {
        Door { listener, secret: secret.to_le_bytes(), callers: VecDeque::new() }
    }

    /// The one that is awaited, if it has come; an error if it has not, and it is late. Who cannot be let in now may be a little later, when
    /// this process has a file less open.
    pub(super) fn look(&mut self, is_late: bool) -> Option<io::Result<TcpStream>> {
        let mut refused = None;
        // A crowd that does not end is not waited for either.
        for _ in 0..PLACES {
            match self.listener.accept() {
                Ok((stream, _)) => self.callers.push_back(Caller { stream, said: Vec::new() }),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        self.callers.retain_mut(|caller| caller.listen(&self.secret));
        if let Some(at) = self.callers.iter().position(|caller| caller.said == self.secret) {
            let known = self.callers.remove(at);
            self.callers.clear();
            return known.map(|caller| caller.stream.set_nonblocking(false).map(|()| caller.stream));
        }
        self.callers.drain(..self.callers.len().saturating_sub(PLACES));
        let has_not_come = || io::Error::new(ErrorKind::TimedOut, "it has not connected");
        is_late.then(|| Err(refused.unwrap_or_else(has_not_come)))
    }
}

/// One that has connected, and what it has said of itself.
struct Caller {
    stream: TcpStream,
    said: Vec<u8>,
}

impl Caller {
    /// Hears what it has to say; whether it may be the one that knows the secret.
    fn listen(&mut self, secret: &[u8; 8]) -> bool {
        let mut bytes = [0; 8];
        // No more than that: what comes next is for others to read.
        let bytes = &mut bytes[self.said.len()..];
        let may_say_more = self.stream.set_nonblocking(true).and_then(|()| self.stream.read(bytes));
        match may_say_more {
            Ok(0) => false,
            Ok(count) => {
                self.said.extend_from_slice(&bytes[..count]);
                secret.starts_with(&self.said)
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::thread;

    use super::*;

    const SECRET: u64 = 0x0102_0304_0506_0708;

    fn door() -> (Door, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        listener.set_nonblocking(true).expect("a socket can do that");
        let place = listener.local_addr().expect("it is bound");
        (Door::new(listener, SECRET), place)
    }

    /// Connects, and says so much of the secret.
    fn say(place: SocketAddr, count: usize) -> TcpStream {
        let mut stream = TcpStream::connect(place).expect("it listens");
        stream.write_all(&SECRET.to_le_bytes()[..count]).expect("it is there");
        stream
    }

    fn look_until_it_comes(door: &mut Door) -> io::Result<TcpStream> {
        loop {
            if let Some(come) = door.look(false) {
                return come;
            }
            thread::yield_now();
        }
    }

    /// Looks until so many stand at the door.
    fn look_until(door: &mut Door, count: usize) {
        while door.callers.len() != count {
            assert!(door.look(false).is_none());
            thread::yield_now();
        }
    }

    #[test]
    fn who_says_nothing_or_little_holds_nobody_up() {
        let (mut door, place) = door();
        let strangers = [say(place, 0), say(place, 3)];
        look_until(&mut door, 2);
        let mut known = say(place, 8);
        let mut come = look_until_it_comes(&mut door).expect("it knows the secret");
        known.write_all(b"beat").expect("it is there");
        let mut said = [0; 4];
        come.read_exact(&mut said).expect("it says more");
        assert_eq!(&said, b"beat");
        drop(strangers);
    }

    #[test]
    fn who_says_it_piece_by_piece_keeps_its_place() {
        let (mut door, place) = door();
        let mut known = say(place, 5);
        look_until(&mut door, 1);
        let stranger = say(place, 0);
        look_until(&mut door, 2);
        known.write_all(&SECRET.to_le_bytes()[5..]).expect("it is there");
        look_until_it_comes(&mut door).expect("it knows the secret");
        drop(stranger);
    }

    #[test]
    fn who_says_something_else_or_goes_loses_its_place() {
        let (mut door, place) = door();
        let mut callers = [say(place, 3), say(place, 4), say(place, 0)];
        look_until(&mut door, 3);
        callers[0].write_all(&[0]).expect("it is there");
        look_until(&mut door, 2);
        callers[1].shutdown(std::net::Shutdown::Both).expect("it is there");
        look_until(&mut door, 1);
    }

    #[test]
    fn a_crowd_does_not_keep_the_one_that_is_awaited_out() {
        let (mut door, place) = door();
        let crowd: Vec<_> = (0..2 * PLACES).map(|_| say(place, 0)).collect();
        look_until(&mut door, PLACES);
        let known = say(place, 8);
        look_until_it_comes(&mut door).expect("it knows the secret");
        drop((crowd, known));
    }

    #[test]
    fn who_is_late_is_late_whoever_stands_there() {
        let (mut door, place) = door();
        let strangers = [say(place, 0), say(place, 3)];
        let error = door.look(true).expect("it is late").expect_err("it has not come");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(strangers);
        let known = say(place, 8);
        look_until_it_comes(&mut door).expect("it knows the secret");
        drop(known);
    }
}
