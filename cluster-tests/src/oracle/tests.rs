//! The judge is judged: right histories pass, whatever their clients did not get to know, and each kind of falsehood is convicted by the
//! check that is there for it.

use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};

use super::falsify::{ALL, Falsehood, falsify};
use super::{Promise, Verdict, check, model};
use crate::history::{
    Collection, Connection, End, Epoch, EventKind, Facts, Frame, Freshness, History, Line, Micros, Object, Operation,
    Outcome, Page, Reader, Request, Revision, Seen, Start, Stream, Writers,
};
use crate::random::Random;

fn assert_passes(history: &History) -> Verdict {
    let verdict = check(history);
    assert!(verdict.passed(), "{verdict}");
    verdict
}

/// Every falsehood finds a place in some history and is then convicted by its own check.
#[test]
fn each_falsehood_is_convicted_by_its_check() {
    for (what, by) in ALL {
        let mut done = 0;
        for seed in 0..40 {
            let mut run = model::run(seed, 120);
            if falsify(&mut run, what, &mut Random::new(seed)).is_none() {
                continue;
            }
            done += 1;
            let verdict = check(&run.history);
            assert!(verdict.found.contains_key(by), "{what:?}, seed {seed}: not found by {by}, but {verdict}");
        }
        assert!(done >= 3, "{what:?} found a place in {done} histories");
    }
}

/// What the model records is looked at in full: writes of unknown outcome that did happen, and late; refusals; pages; resumed
/// watches; transactions.
#[test]
fn right_histories_pass_and_are_looked_at() {
    let mut late = 0;
    for seed in 0..30 {
        let run = model::run(seed, 150);
        let verdict = assert_passes(&run.history);
        let counts = &verdict.counts;
        assert!(counts.events > 100 && counts.lists > 10 && counts.bookmarks > 10, "seed {seed}: {counts:?}");
        assert!(counts.unjudged.is_empty(), "seed {seed}: {counts:?}");
        late += run
            .history
            .operations
            .iter()
            .filter(|one| matches!(one.outcome, Outcome::Unknown { .. }))
            .filter(|one| {
                let value = one.request.value();
                let effect =
                    run.log.iter().find(|change| change.after.as_ref().map(|seen| seen.value.as_str()) == value);
                value.is_some() && effect.is_some_and(|effect| effect.at > one.returned)
            })
            .count();
    }
    assert!(late > 20, "{late} writes took effect after their clients had given up");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Any right history passes; with any one falsehood it does not.
    #[test]
    fn right_passes_and_wrong_does_not(seed in any::<u64>(), which in 0..ALL.len(), requests in 40_u64..200) {
        let mut run = model::run(seed, requests);
        let verdict = check(&run.history);
        prop_assert!(verdict.passed(), "{}", verdict);
        let (what, _) = ALL[which];
        if falsify(&mut run, what, &mut Random::new(seed)).is_some() {
            prop_assert!(!check(&run.history).passed(), "{:?} was not convicted", what);
        }
    }
}

/// A watch and a page that are refused as too old convict, unless an operator has begun a new epoch since: ahead of where they stand, and
/// before they were refused.
#[test]
fn a_new_epoch_excuses_who_stands_before_it() {
    for what in [Falsehood::EarlyExpiry, Falsehood::EarlyExpiryOfPages] {
        let mut tried = 0;
        for seed in 0..20 {
            let mut run = model::run(seed, 120);
            if falsify(&mut run, what, &mut Random::new(seed)).is_none() {
                continue;
            }
            tried += 1;
            let begun = |begun, revision| {
                let history = History { epochs: vec![Epoch { begun, revision }], ..run.history.clone() };
                check(&history)
            };
            assert!(!check(&run.history).passed(), "{what:?} of seed {seed}");
            assert!(begun(0, Revision::MAX).passed(), "{what:?} of seed {seed}: {}", begun(0, Revision::MAX));
            assert!(!begun(0, 1).passed(), "{what:?} of seed {seed}: an epoch of long ago excuses nobody");
            assert!(
                !begun(Micros::MAX, Revision::MAX).passed(),
                "{what:?} of seed {seed}: a later epoch excuses nobody"
            );
        }
        assert!(tried > 0, "{what:?} was never tried");
    }
}

/// A history written by hand: one collection from revision 10 on, and one watch of it.
struct Book {
    history: History,
}

impl Book {
    fn new(path: &str, writers: Writers) -> Self {
        let mut history =
            History { collections: vec![Collection { path: path.into(), writers }], ..History::default() };
        history.operations.push(Operation {
            id: 0,
            client: 0,
            replica: 1,
            invoked: 0,
            returned: 5,
            request: Request::List { collection: 0, selector: None, freshness: Freshness::Latest, page: Page::Whole },
            outcome: Outcome::Items { revision: 10, items: vec![], more: false },
        });
        history.streams.push(Stream {
            id: 0,
            collection: 0,
            selector: None,
            reader: Reader::Pinned,
            connections: vec![Connection {
                replica: 1,
                opened: 5,
                start: Start::BehindList(0, 10),
                frames: vec![],
                end: End::Left,
                ended: 1_000_000,
            }],
            awaited: None,
        });
        Self { history }
    }

    fn ask(&mut self, (invoked, returned): (Micros, Micros), request: Request, outcome: Outcome) -> &mut Self {
        let id = self.history.operations.len() as u64;
        self.history.operations.push(Operation { id, client: 1, replica: 2, invoked, returned, request, outcome });
        self
    }

    fn create(&mut self, when: (Micros, Micros), name: &str, value: &str, outcome: Outcome) -> &mut Self {
        let request = Request::Create { object: object(name), value: value.into(), key: None };
        self.ask(when, request, outcome)
    }

    fn get(&mut self, when: (Micros, Micros), name: &str, outcome: Outcome) -> &mut Self {
        self.ask(when, Request::Get { object: object(name), freshness: Freshness::Latest }, outcome)
    }

    fn event(&mut self, at: Micros, kind: EventKind, seen: Seen) -> &mut Self {
        let line = Line::Event { kind, bytes: seen.print, seen };
        self.history.streams[0].connections[0].frames.push(Frame { at, line });
        self
    }

    fn fact(&mut self, revision: Revision, name: &str, kind: EventKind, facts: Facts) -> &mut Self {
        let seen = Seen { facts: Some(facts), ..model::version(name, name, revision, "", "") };
        self.event(revision, kind, seen)
    }
}

fn object(name: &str) -> Object {
    Object { collection: 0, name: name.into() }
}

fn shown(name: &str, revision: Revision, value: &str) -> Seen {
    model::version(name, &format!("uid-{name}"), revision, value, "a")
}

fn unknown() -> Outcome {
    Outcome::Unknown { why: "reset".into() }
}

fn refused(code: u16) -> Outcome {
    Outcome::Refused { code, reason: String::new() }
}

const MAPS: &str = "/api/v1/namespaces/x/configmaps";

/// A create whose answer is lost, and the same create again refused with 409: the first has happened, and all is well. Had it not
/// happened, the 409 is wrong.
#[test]
fn a_retry_after_an_unknown_outcome_may_find_its_own_work() {
    let mut book = Book::new(MAPS, Writers::Ours);
    book.create((10, 20), "a", "v1", unknown()).create((30, 40), "a", "v2", refused(409));
    let without = book.history.clone();
    book.event(50, EventKind::Added, shown("a", 11, "v1"));
    assert_passes(&book.history);
    assert!(check(&without).found.contains_key("Refusal"), "nothing was there");
}

/// A compare-and-set that lost against a delete and is told so with 409, while nothing is there and long before anything is again, is
/// right; one whose expectation still held is not.
#[test]
fn who_lost_against_a_delete_may_be_told_of_a_conflict() {
    let book = |until: Micros| {
        let mut book = Book::new(MAPS, Writers::Ours);
        let request = || Request::Update { object: object("a"), value: "v2".into(), expected: Some(11) };
        book.create((10, 20), "a", "v1", Outcome::Object(shown("a", 11, "v1")))
            .event(20, EventKind::Added, shown("a", 11, "v1"))
            .ask((30, until), request(), refused(409))
            .ask(
                (40, 50),
                Request::Delete { object: object("a"), expected: None },
                Outcome::Done { uid: "uid-a".into() },
            )
            .event(50, EventKind::Deleted, shown("a", 12, "v1"))
            .create((100, 110), "a", "v3", Outcome::Object(Seen { uid: "uid-b".into(), ..shown("a", 13, "v3") }))
            .event(110, EventKind::Added, Seen { uid: "uid-b".into(), ..shown("a", 13, "v3") });
        book.history
    };
    assert_passes(&book(60));
    assert!(!check(&book(35)).passed(), "the expectation held");
}

/// A watch shows a write of unknown outcome at once; a read begun long before, and ended after, may still not show it, and neither
/// may one begun afterwards if nobody was answered: what a watch showed, and when, moves no floor (etcd #19998).
#[test]
fn a_watch_tightens_no_times() {
    let mut book = Book::new(MAPS, Writers::Ours);
    book.create((10, 500), "a", "v1", unknown())
        .event(20, EventKind::Added, shown("a", 11, "v1"))
        .get((15, 300), "a", refused(404))
        .get((310, 400), "a", Outcome::Object(shown("a", 11, "v1")));
    assert_passes(&book.history);
}

/// A compare-and-set that lost to a deletion may be told so by 409; one whose object stood as expected all the time may not,
/// and what is wrong convicts itself alone, not all that came later.
#[test]
fn a_lost_compare_is_refused_and_a_won_one_is_not() {
    let mut book = Book::new(MAPS, Writers::Ours);
    let update = || Request::Update { object: object("a"), value: "v2".into(), expected: Some(11) };
    let delete = || Request::Delete { object: object("a"), expected: None };
    book.create((10, 20), "a", "v1", Outcome::Object(shown("a", 11, "v1"))).event(
        20,
        EventKind::Added,
        shown("a", 11, "v1"),
    );
    let mut wrong = Book { history: book.history.clone() };
    book.ask((30, 40), delete(), Outcome::Done { uid: "uid-a".into() })
        .event(40, EventKind::Deleted, shown("a", 12, "v1"))
        .ask((35, 60), update(), refused(409))
        .create((70, 80), "b", "v3", Outcome::Object(shown("b", 13, "v3")))
        .event(80, EventKind::Added, shown("b", 13, "v3"))
        .create((90, 99), "a", "v4", Outcome::Object(Seen { uid: "new".into(), ..shown("a", 14, "v4") }))
        .event(99, EventKind::Added, Seen { uid: "new".into(), ..shown("a", 14, "v4") });
    assert_passes(&book.history);
    wrong
        .ask((30, 40), update(), refused(409))
        .create((70, 80), "b", "v3", Outcome::Object(shown("b", 12, "v3")))
        .event(80, EventKind::Added, shown("b", 12, "v3"))
        .ask((90, 95), delete(), Outcome::Done { uid: "uid-a".into() })
        .event(95, EventKind::Deleted, shown("a", 13, "v1"));
    let verdict = check(&wrong.history);
    assert_eq!(verdict.found, [("Refusal".to_owned(), 1)].into(), "{verdict}");
}

/// Two reads one behind the other must not go back, though the write they show has never been answered.
#[test]
fn reads_do_not_go_back() {
    let mut book = Book::new(MAPS, Writers::Ours);
    book.create((10, 500), "a", "v1", unknown())
        .event(20, EventKind::Added, shown("a", 11, "v1"))
        .get((30, 40), "a", Outcome::Object(shown("a", 11, "v1")))
        .get((50, 60), "a", refused(404));
    assert!(check(&book.history).violations.contains_key(&Promise::G2));
}

/// An unknown write that took effect long after its client had gone is no violation, but twice is one.
#[test]
fn a_late_effect_is_one_effect() {
    let mut book = Book::new(MAPS, Writers::Ours);
    book.create((10, 20), "a", "v1", unknown())
        .create((30, 40), "b", "v2", Outcome::Object(shown("b", 11, "v2")))
        .event(41, EventKind::Added, shown("b", 11, "v2"))
        .event(5000, EventKind::Added, shown("a", 12, "v1"));
    assert_passes(&book.history);
    let mut gone = shown("a", 13, "v1");
    gone.print += 1;
    let delete = Request::Delete { object: object("a"), expected: None };
    book.ask((5100, 5200), delete, Outcome::Done { uid: "uid-a".into() }).event(5200, EventKind::Deleted, gone).event(
        5300,
        EventKind::Added,
        Seen { uid: "other".into(), ..shown("a", 14, "v1") },
    );
    assert!(check(&book.history).found.contains_key("OneEffect"));
}

/// A deletion that was acknowledged and that nobody ever sees is lost, once a list behind it is part of what was watched.
#[test]
fn a_lost_deletion_is_missed() {
    let mut book = Book::new(MAPS, Writers::Ours);
    book.create((10, 20), "a", "v1", Outcome::Object(shown("a", 11, "v1"))).event(
        25,
        EventKind::Added,
        shown("a", 11, "v1"),
    );
    let delete = Request::Delete { object: object("a"), expected: None };
    book.ask((30, 40), delete, Outcome::Done { uid: "uid-a".into() });
    let list = Request::List { collection: 0, selector: None, freshness: Freshness::Latest, page: Page::Whole };
    let items = Outcome::Items { revision: 11, items: vec![shown("a", 11, "v1")], more: false };
    book.ask((50, 60), list, items);
    assert!(check(&book.history).found.contains_key("Acknowledged"));
}

/// A key makes attempts one: the second answer may show what the first has made before the second began, but never another object.
#[test]
fn a_key_makes_attempts_one() {
    let mut book = Book::new("/clusters/c/apis/quilt.sh/v1/workloads", Writers::Shared);
    let request = || Request::Create { object: object("w"), value: "v1".into(), key: Some("k".into()) };
    let answer = |uid: &str| Outcome::Object(Seen { uid: uid.into(), ..shown("w", 0, "v1") });
    book.ask((10, 20), request(), unknown())
        .event(15, EventKind::Added, shown("w", 11, "v1"))
        .get((30, 40), "w", Outcome::Object(shown("w", 11, "v1")))
        .ask((50, 60), request(), answer("uid-w"));
    assert_passes(&book.history);
    book.ask((70, 80), request(), answer("uid-2"));
    assert!(check(&book.history).found.contains_key("OneEffect"));
}

/// A watch that begins inside a transaction gets the rest of it, and that is well.
#[test]
fn a_watch_may_begin_inside_a_transaction() {
    let run = (0..200).map(|seed| model::run(seed, 80)).find(|run| {
        let starts = run.history.streams.iter().flat_map(|stream| &stream.connections);
        let mut starts = starts.filter_map(|connection| match connection.start {
            Start::Behind(revision) => Some(revision),
            _ => None,
        });
        starts.any(|start| run.history.transactions.iter().any(|one| one.revisions.first() == Some(&start)))
    });
    assert_passes(&run.expect("some watch resumes inside a transaction").history);
}

/// A token of two uses admits two of three, and the third is refused; three admitted, or a refusal while it has uses left, is wrong.
#[test]
fn tokens_admit_as_many_as_they_say() {
    let mut book = Book::new("/clusters/c/api/v1/nodes", Writers::Shared);
    let join = |node: &str| Request::Join { token: "t".into(), node: node.into() };
    let done = || Outcome::Done { uid: String::new() };
    let node =
        |subnet: &str| Facts::Node { cpu_millis: None, memory_bytes: None, pods: None, subnet: Some(subnet.into()) };
    let issue = Request::IssueToken { token: "t".into(), uses: 2, ttl_secs: None };
    book.ask((10, 20), issue, done())
        .ask((30, 60), join("n1"), done())
        .ask((30, 60), join("n2"), unknown())
        .fact(11, "n1", EventKind::Added, node("10.0.0.0/26"))
        .fact(12, "n2", EventKind::Added, node("10.0.0.64/26"));
    let mut early = book.history.clone();
    book.ask((30, 70), join("n3"), refused(401));
    assert_passes(&book.history);
    // All others began after this one had been refused.
    for operation in early.operations.iter_mut().filter(|one| matches!(one.request, Request::Join { .. })) {
        operation.invoked += 100;
        operation.returned += 100;
    }
    let mut early = Book { history: early };
    early.ask((30, 40), join("n3"), refused(401));
    assert!(check(&early.history).violations.contains_key(&Promise::G6), "refused too early");
    book.ask((80, 90), join("n4"), done()).fact(13, "n4", EventKind::Added, node("10.0.0.128/26"));
    assert!(check(&book.history).found.contains_key("Token"), "three admitted");
}

/// A token of sixty seconds admits whoever comes within its time and refuses who comes behind it. Admitted behind its end, or refused long
/// before it, is wrong, however wrong clocks are; between the two, where a clock may be a tenth too fast or too slow, both are right. While
/// the control plane stands still, its time may do so too.
#[test]
fn tokens_end_at_their_time() {
    const SECOND: Micros = 1_000_000;
    let at = |seconds: Micros| (seconds * SECOND, seconds * SECOND + 500);
    let join = |node: &str| Request::Join { token: "t".into(), node: node.into() };
    let done = || Outcome::Done { uid: String::new() };
    let subnet = Facts::Node { cpu_millis: None, memory_bytes: None, pods: None, subnet: Some("10.0.0.0/26".into()) };
    let book = |silent: std::ops::Range<Micros>, last: Micros, outcome: Outcome| {
        let mut book = Book::new("/clusters/c/api/v1/nodes", Writers::Shared);
        let issue = Request::IssueToken { token: "t".into(), uses: 9, ttl_secs: Some(60) };
        book.ask(at(1), issue, done());
        // Something is acknowledged all the time, except while nothing is.
        for half in (2..2 * last).filter(|half| !silent.contains(&(half / 2))) {
            let issue = Request::IssueToken { token: format!("other-{half}"), uses: 1, ttl_secs: None };
            book.ask((half * SECOND / 2, half * SECOND / 2 + 400), issue, done());
        }
        book.ask(at(last), join("n1"), outcome).fact(11, "n1", EventKind::Added, subnet.clone());
        book.history
    };
    let never = 0..0;
    let passes = |history: History| assert_passes(&history).counts;
    let admitted = passes(book(never.clone(), 40, done()));
    assert_eq!((admitted.lent, admitted.outlived), (1, 0), "within its time");
    passes(book(never.clone(), 60, done()));
    assert_eq!(passes(book(20..60, 100, done())).outlived, 0, "its time may have stood still");
    let convicted = |history: &History| {
        let verdict = check(history);
        assert!(verdict.violations.contains_key(&Promise::G15), "{verdict}");
        assert_eq!(verdict.found.get("TokenTime"), Some(&1), "{verdict}");
        verdict.counts
    };
    assert_eq!(convicted(&book(never.clone(), 80, done())).outlived, 1, "admitted behind its end");
    let without = |mut history: History| {
        history.streams[0].connections[0].frames.clear();
        history
    };
    convicted(&without(book(never.clone(), 40, refused(401))));
    passes(without(book(never.clone(), 50, refused(401))));
    assert_eq!(passes(without(book(never, 80, refused(401)))).outlived, 1, "refused behind its end");
}

fn pod(node: Option<&str>, cpu_millis: u64) -> Facts {
    Facts::Pod {
        node: node.map(str::to_owned),
        cpu_millis,
        memory_bytes: 0,
        finished: false,
        terminating: false,
        owner: Some("set".into()),
        replaces: None,
    }
}

fn node(cpu_millis: u64, subnet: &str) -> Facts {
    Facts::Node { cpu_millis: Some(cpu_millis), memory_bytes: None, pods: None, subnet: Some(subnet.into()) }
}

/// A pod bound once to a node with room is well; bound again, or beyond the room, or into a subnet that is another's, is not.
#[test]
fn pods_and_nodes_keep_their_invariants() {
    let base = || {
        let mut book = Book::new("/api/v1/things", Writers::Shared);
        book.fact(11, "n1", EventKind::Added, node(100, "10.0.0.0/24"))
            .fact(12, "n2", EventKind::Added, node(100, "10.0.1.0/24"))
            .fact(13, "p1", EventKind::Added, pod(None, 60))
            .fact(14, "p2", EventKind::Added, pod(None, 60))
            .fact(15, "p1", EventKind::Modified, pod(Some("n1"), 60))
            .fact(16, "p2", EventKind::Modified, pod(Some("n2"), 60));
        book
    };
    assert_passes(&base().history);
    let mut moved = base();
    moved.fact(17, "p1", EventKind::Modified, pod(Some("n2"), 60));
    assert!(check(&moved.history).found.contains_key("BoundOnce"));
    let mut full = base();
    full.fact(17, "p3", EventKind::Added, pod(None, 60)).fact(18, "p3", EventKind::Modified, pod(Some("n1"), 60));
    assert!(check(&full.history).found.contains_key("Capacity"));
    let mut replaced = base();
    let taking = match pod(None, 60) {
        Facts::Pod { node, cpu_millis, memory_bytes, finished, terminating, owner, .. } => {
            let replaces = Some("p1".into());
            Facts::Pod { node, cpu_millis, memory_bytes, finished, terminating, owner, replaces }
        }
        other => other,
    };
    replaced.fact(17, "p4", EventKind::Added, taking).fact(18, "p4", EventKind::Modified, pod(Some("n1"), 60));
    assert_passes(&replaced.history);
    let mut overlap = base();
    overlap.fact(17, "n3", EventKind::Added, node(100, "10.0.0.128/25"));
    assert!(check(&overlap.history).found.contains_key("Subnets"));
}

/// The binding of a Pod and the end of the one whose place it takes are one transaction: no list and no bookmark stands between.
#[test]
fn a_bind_is_one_transaction() {
    let with = |terminating, node: Option<&str>, replaces: Option<&str>| Facts::Pod {
        node: node.map(str::to_owned),
        cpu_millis: 1,
        memory_bytes: 1,
        finished: false,
        terminating,
        owner: None,
        replaces: replaces.map(str::to_owned),
    };
    let base = || {
        let mut book = Book::new("/clusters/c/api/v1/pods", Writers::Shared);
        book.fact(11, "old", EventKind::Added, with(false, Some("n1"), None))
            .fact(12, "new", EventKind::Added, with(false, None, Some("old")))
            .fact(13, "new", EventKind::Modified, with(false, Some("n1"), None));
        book
    };
    let mut whole = base();
    whole.fact(14, "old", EventKind::Modified, with(true, Some("n1"), None));
    assert_passes(&whole.history);
    let mut split = base();
    let line = Line::Bookmark { revision: 13, initial_end: false };
    split.history.streams[0].connections[0].frames.push(Frame { at: 13, line });
    split.fact(14, "old", EventKind::Modified, with(true, Some("n1"), None));
    let verdict = check(&split.history);
    assert!(verdict.found.contains_key("Atomic") && verdict.found.contains_key("Bookmarkable"), "{verdict}");
}

/// A Deployment of two with a surge of one: its sets may want three, and four are too many; what was wanted before it was scaled down
/// is no violation, but not more than that. A set of two has two pods, and a third is too many.
#[test]
fn deployments_stay_within_desired_and_surge() {
    let set = |replicas| Facts::ReplicaSet { owner: Some("roll".into()), replicas };
    let base = |replicas| {
        let mut book = Book::new("/apis/apps/v1/things", Writers::Shared);
        book.fact(11, "roll", EventKind::Added, Facts::Deployment { replicas, surge: 1 })
            .fact(12, "old", EventKind::Added, set(2))
            .fact(13, "new", EventKind::Added, set(1));
        book
    };
    assert_passes(&base(2).history);
    let mut more = base(2);
    more.fact(14, "new", EventKind::Modified, set(2));
    assert!(check(&more.history).found.contains_key("CreatedWithinDesired"));
    let mut down = base(5);
    down.fact(14, "roll", EventKind::Modified, Facts::Deployment { replicas: 1, surge: 1 }).fact(
        15,
        "new",
        EventKind::Modified,
        set(2),
    );
    assert_passes(&down.history);
    let mut pods = Book::new("/apis/apps/v1/things", Writers::Shared);
    pods.fact(11, "set", EventKind::Added, set(2)).fact(12, "p1", EventKind::Added, pod(None, 1)).fact(
        13,
        "p2",
        EventKind::Added,
        pod(None, 1),
    );
    assert_passes(&pods.history);
    pods.fact(14, "p3", EventKind::Added, pod(None, 1));
    assert!(check(&pods.history).found.contains_key("CreatedWithinDesired"));
}

/// Falsehoods are told with the requests they are about.
#[test]
fn a_violation_names_what_it_is_about() {
    let mut named = 0;
    for seed in 0..20 {
        let mut run = model::run(seed, 120);
        if falsify(&mut run, Falsehood::StaleRead, &mut Random::new(seed)).is_some() {
            let verdict = check(&run.history);
            let stale = verdict.violations.values().flatten().find(|one| one.check == "StaleRead");
            let stale = stale.expect("convicted");
            assert_eq!(stale.promise, Promise::G2);
            assert!(stale.operations.len() == 2 && stale.replica.is_some() && stale.revision.is_some(), "{stale:?}");
            named += 1;
        }
    }
    assert!(named > 3);
}

/// A write whose answer tells no revision, and that began before the first list was read, may stand in that list or before it: it is no
/// loss. One that began behind it and is never shown is.
#[test]
fn a_write_from_before_the_first_list_is_not_lost() {
    let unknown = |name: &str, value: &str| Outcome::Object(Seen { revision: 0, ..shown(name, 1, value) });
    let mut book = Book::new("/api/v1/namespaces/m/configmaps", Writers::Ours);
    book.create((1, 4), "early", "v", unknown("early", "v"));
    let list = Request::List { collection: 0, selector: None, freshness: Freshness::Latest, page: Page::Whole };
    book.ask((50, 60), list, Outcome::Items { revision: 10, items: vec![], more: false });
    let counts = assert_passes(&book.history).counts;
    assert_eq!(counts.unjudged.len(), 1, "{counts:?}");
    let gone = |uid: &str| Outcome::Done { uid: uid.into() };
    book.ask((2, 4), Request::Delete { object: object("before"), expected: None }, gone("uid-before"));
    assert_eq!(assert_passes(&book.history).counts.unjudged.len(), 2);
    book.create((20, 30), "late", "w", unknown("late", "w"));
    let verdict = check(&book.history);
    assert_eq!(verdict.found.get("Acknowledged"), Some(&1), "{verdict}");
}
