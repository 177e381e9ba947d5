//! Jobs of threads that watch each other, and neighbours that the tests play.

use super::*;
use crate::facts::ThreadLevel;
use ring::{Loss, Sign};

/// A process of a job on this host that watches, and what its hook is told.
struct One {
    watched: Arc<Watched>,
    watch: Watch,
    told: Receiver<String>,
}

fn posts(size: usize, heartbeat: Heartbeat) -> (Vec<Post>, Vec<Address>) {
    let open = |_| Post::open(Some(heartbeat), true).expect("a port is free");
    let posts: Vec<_> = (0..size).map(open).collect();
    let addresses = posts.iter().map(|post| Address::read(&Post::address(Some(post)).to_bytes())).collect();
    (posts, addresses)
}

fn begin(post: Post, rank: usize, addresses: &[Address]) -> One {
    begin_with(post, rank, addresses, || {})
}

/// Its hook does something besides telling the test.
fn begin_with(
    post: Post,
    rank: usize,
    addresses: &[Address],
    mut and_then: impl FnMut() + Send + 'static,
) -> One {
    let names = vec!["here".to_owned(); addresses.len()];
    let facts = Facts::new(Rank(rank as u32), &names, ThreadLevel::Multiple);
    let (tell, told) = mpsc::channel();
    let watched = Arc::new(Watched::default());
    watched.set_hook(Box::new(move |alarm| {
        let text = match alarm {
            Alarm::Lost(error) => error.to_string(),
            Alarm::Stuck(error) => format!("stuck: {error}"),
            Alarm::Unwatched { rank, why } => format!("{rank} is not watched: {why}"),
        };
        tell.send(text).expect("the test listens");
        and_then();
    }));
    let watch = post.watch(&facts, addresses, watched.clone()).expect("there are several");
    One { watched, watch, told }
}

fn job(size: usize) -> Vec<One> {
    let (posts, addresses) = posts(size, Heartbeat::new(AGES));
    posts.into_iter().enumerate().map(|(rank, post)| begin(post, rank, &addresses)).collect()
}

/// Long enough for any machine.
const AGES: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_millis(200);

fn meet(job: &[One]) {
    while !job.iter().all(|one| one.watch.has_met()) {
        thread::yield_now();
    }
}

#[test]
fn all_are_told_of_one_whose_connections_end() {
    let mut job = job(4);
    meet(&job);
    drop(job.remove(2));
    for One { watched, told, .. } in &job {
        let said = told.recv().expect("it is told");
        assert!(said.starts_with("rank 2 is lost: its connection to rank "), "{said}");
        assert_eq!(watched.lost().map(ToString::to_string), Some(said));
    }
}

#[test]
fn all_are_told_of_one_that_only_the_network_misses() {
    let job = job(4);
    meet(&job);
    job[0].watch.tell_unreached(Rank(0), Rank(2));
    for (rank, One { told, .. }) in job.iter().enumerate() {
        let (said, why) = (told.recv().expect("it is told"), "rank 0 does not reach it over the network");
        let whom =
            if rank == 2 { "the other processes took this one, rank 2, for lost" } else { "rank 2 is lost" };
        assert_eq!(said, format!("{whom}: {why}"));
    }
    let One { watched, watch: _watch, told } = &job[0];
    assert!(watched.lost().is_some());
    assert!(told.recv().expect("it is told").starts_with("stuck: rank 2 is lost"));
}

#[test]
fn who_has_closed_is_not_missed() {
    let job = job(3);
    meet(&job);
    job.iter().for_each(|one| one.watch.say_bye());
    job.into_iter().for_each(leaves_quietly);
}

fn leaves_quietly(one: One) {
    let One { watched, watch, told } = one;
    drop(watch);
    assert!(watched.lost().is_none());
    drop(watched);
    assert_eq!(told.recv().ok(), None, "nothing is told");
}

#[test]
fn a_bad_end_is_told_around_and_who_goes_on_is_told_so() {
    let job = job(4);
    meet(&job);
    job[0].watch.begin_close();
    job[2].watch.herald(Rank(2)).tell_end(7);
    job[1].watch.herald(Rank(1)).tell_end(8);
    for rank in [1, 2, 3] {
        let said = job[rank].told.recv().expect("it is told");
        assert!(
            said.starts_with("stuck: rank ") && said.contains(" has ended the run with exit code "),
            "{said}"
        );
    }
    job.iter().for_each(|one| one.watch.say_bye());
    job.into_iter().for_each(leaves_quietly);
}

#[test]
fn who_closes_before_all_have_met_is_not_missed() {
    for _ in 0..50 {
        let (posts, addresses) = posts(3, Heartbeat::new(AGES));
        let mut job = Vec::new();
        for (rank, post) in posts.into_iter().enumerate() {
            job.push(begin(post, rank, &addresses));
            // Nobody is there yet who could hear the first one.
            job[rank].watch.say_bye();
        }
        meet(&job);
        job.into_iter().for_each(leaves_quietly);
    }
}

#[test]
fn one_that_ends_before_it_has_met_its_neighbours_holds_nobody_up() {
    let (mut posts, addresses) = posts(2, Heartbeat::new(AGES));
    // The other one never comes.
    let one = begin(posts.remove(0), 0, &addresses);
    drop(one.watch);
    assert_eq!(Arc::strong_count(&one.watched), 1, "the thread that watched is gone");
}

#[test]
fn a_connection_that_comes_about_after_the_end_says_bye() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let place = listener.local_addr().expect("it is bound");
    let lines = Arc::new(Lines::default());
    let watch = Watch { lines: lines.clone(), thread: None, closing: None };
    let (connect, is_asked) = mpsc::channel();
    let reached = reach(lines, Heartbeat::new(AGES), move || {
        is_asked.recv().expect("the test asks");
        TcpStream::connect(place)
    });
    watch.say_bye();
    drop((watch, reached));
    connect.send(()).expect("it waits");
    let mut said = Vec::new();
    listener.accept().expect("it connects").0.read_to_end(&mut said).expect("it ends");
    assert_eq!(said, Message::Bye.to_bytes());
}

#[test]
fn one_that_begins_to_watch_late_is_not_missed() {
    let (mut posts, addresses) = posts(2, Heartbeat { limit: SOON, meeting: AGES });
    let second = posts.pop().expect("there are two");
    let first = begin(posts.remove(0), 0, &addresses);
    // The system has connected it, and it says nothing yet.
    thread::sleep(3 * SOON);
    let second = begin(second, 1, &addresses);
    let job = [first, second];
    meet(&job);
    job.iter().for_each(|one| one.watch.say_bye());
    job.into_iter().for_each(leaves_quietly);
}

#[test]
fn one_that_is_silent_is_lost_and_a_stranger_is_none() {
    let (mut posts, addresses) = posts(2, Heartbeat { limit: SOON, meeting: SOON });
    let silent = posts.remove(1);
    let mut stranger = TcpStream::connect((Ipv4Addr::LOCALHOST, addresses[0].port)).expect("it waits");
    stranger.write_all(&7_u64.to_le_bytes()).expect("it is there");
    let before = come(addresses[0]);
    let one = begin(posts.remove(0), 0, &addresses);
    let said = one.told.recv().expect("it is told");
    assert!(said.starts_with("rank 1 is lost: rank 0 has heard nothing of it for 0."), "{said}");
    drop((silent, stranger, before));
}

/// The second of three processes, of which the first has not come yet, and its connection to the third.
fn one_between(heartbeat: Heartbeat) -> (One, TcpStream, Address) {
    one_between_with(heartbeat, || {})
}

fn one_between_with(
    heartbeat: Heartbeat,
    and_then: impl FnMut() + Send + 'static,
) -> (One, TcpStream, Address) {
    let (mut posts, addresses) = posts(3, heartbeat);
    let third = posts.pop().expect("there are three");
    let one = begin_with(posts.remove(1), 1, &addresses, and_then);
    third.listener.set_nonblocking(false).expect("a socket can wait");
    let (mut stream, _) = third.listener.accept().expect("it connects");
    let mut said = [0; 8];
    stream.read_exact(&mut said).expect("it says who it is");
    assert_eq!(u64::from_le_bytes(said), third.address.secret);
    (one, stream, addresses[1])
}

#[test]
fn one_whose_neighbour_is_late_gives_signs_of_life_to_the_other() {
    let (one, mut third, _) = one_between(Heartbeat::new(SOON));
    for _ in 0..2 {
        let mut beat = [0; MESSAGE_BYTES];
        third.read_exact(&mut beat).expect("it lives");
        assert_eq!(Message::read(&beat, 3), Some(Message::Beat));
    }
    assert!(!one.watch.has_met());
}

#[test]
fn one_whose_hook_waits_gives_signs_of_life() {
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let wait = move || {
        let _ = may_go_on.recv();
    };
    let (one, mut third, _) = one_between_with(Heartbeat { limit: 5 * SOON, meeting: SOON }, wait);
    // The test may fail, and then this goes before what would wait for the hook.
    let go_on = go_on;
    one.told.recv().expect("it is told, and waits");
    // Signs of life from before that are none.
    third.set_nonblocking(true).expect("a socket can do that");
    while third.read(&mut [0; MESSAGE_BYTES]).is_ok() {}
    third.set_nonblocking(false).expect("a socket can do that");
    third.set_read_timeout(Some(100 * SOON)).expect("a socket can do that");
    for _ in 0..2 {
        third.read_exact(&mut [0; MESSAGE_BYTES]).expect("it lives");
    }
    drop((go_on, one));
}

#[test]
fn one_whose_neighbour_is_late_misses_the_other() {
    let (one, third, _) = one_between(Heartbeat::new(SOON));
    drop(third);
    let said = one.told.recv().expect("it is told");
    assert_eq!(said, "rank 2 is lost: its connection to rank 1 has ended");
    assert!(!one.watch.has_met());
}

#[test]
fn one_whose_neighbour_is_late_tells_it_of_a_loss_and_who_stays_is_told_so() {
    let (one, third, address) = one_between(Heartbeat::new(SOON));
    drop(third);
    let said = one.told.recv().expect("it is told");
    let mut first = come(address);
    let mut news = [0; MESSAGE_BYTES];
    first.read_exact(&mut news).expect("it tells");
    let loss = Loss { rank: Rank(2), by: Rank(1), sign: Sign::End };
    assert_eq!(Message::read(&news, 3), Some(Message::Lost(loss)));
    // Nobody is left to be watched, and one is still there.
    drop(first);
    drop(one.watched);
    assert_eq!(one.told.recv().ok(), Some(format!("stuck: {said}")));
}

/// As `one_between`, when it has told that the first one is late.
fn one_that_waits_no_more() -> (One, TcpStream, Address) {
    let between = one_between(Heartbeat { limit: AGES, meeting: SOON });
    let said = between.0.told.recv().expect("it is told");
    assert_eq!(said, "rank 0 is not watched: it has not connected");
    between
}

/// Connects to a process as the one before it does.
fn come(address: Address) -> TcpStream {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, address.port)).expect("it waits");
    stream.write_all(&address.secret.to_le_bytes()).expect("it is there");
    stream
}

#[test]
fn one_that_comes_late_is_watched_all_the_same() {
    let (one, third, address) = one_that_waits_no_more();
    while !one.watch.has_met() {
        thread::yield_now();
    }
    let mut first = come(address);
    let mut beat = [0; MESSAGE_BYTES];
    first.read_exact(&mut beat).expect("it lives");
    assert_eq!(Message::read(&beat, 3), Some(Message::Beat));
    drop(first);
    let said = one.told.recv().expect("it is told");
    assert_eq!(said, "rank 0 is lost: its connection to rank 1 has ended");
    drop(third);
}

#[test]
fn one_that_comes_late_is_told_of_a_loss() {
    let (one, third, address) = one_that_waits_no_more();
    drop(third);
    let said = one.told.recv().expect("it is told");
    assert!(said.starts_with("rank 2 is lost"), "{said}");
    let mut news = [0; MESSAGE_BYTES];
    come(address).read_exact(&mut news).expect("it tells");
    let loss = Loss { rank: Rank(2), by: Rank(1), sign: Sign::End };
    assert_eq!(Message::read(&news, 3), Some(Message::Lost(loss)));
}

#[test]
fn one_that_comes_when_the_watch_ends_is_told_so() {
    let (one, third, address) = one_that_waits_no_more();
    let mut first = come(address);
    one.watch.say_bye();
    drop(one);
    let mut said = Vec::new();
    first.read_to_end(&mut said).expect("it ends");
    assert!(said.ends_with(&Message::Bye.to_bytes()), "{said:?}");
    drop(third);
}

#[test]
fn nobody_watches_unless_all_do() {
    let (posts, mut addresses) = posts(2, Heartbeat::new(AGES));
    addresses[1] = Post::address(None);
    let facts = Facts::new(Rank(0), &["a".to_owned(), "a".to_owned()], ThreadLevel::Multiple);
    let first = posts.into_iter().next().expect("there are two");
    assert!(first.watch(&facts, &addresses, Arc::default()).is_none());
    assert!(Post::open(None, true).is_none());
    let said = complaint(&addresses).expect("one would watch");
    assert!(said.contains("since rank 1 does not: "), "{said}");
    let none = Address::default();
    let said = complaint(&[none, addresses[0], none, none]).expect("one would watch");
    assert!(said.contains("since rank 0 does not, nor do 2 more: "), "{said}");
    assert_eq!([complaint(&addresses[..1]), complaint(&[none]), complaint(&[none; 3])], [const { None }; 3]);
}
