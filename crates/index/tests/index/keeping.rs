//! An index stays true: what is new, changed, copied, renamed, gone or broken.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use omniburn_index::{
    Content, Control, Embedder, EmbedderProfile, Fault, Index, IndexError, Kind, Root, Rules, SearchOptions, Vector,
};

use crate::support::{Place, Store, Words, age, quiet};

crate::support::on_both_stores! {
    what_is_new_changed_unchanged_and_gone_is_counted_and_found;
    copies_cost_no_compute_and_renamed_files_keep_their_vectors;
    a_content_that_one_file_leaves_and_another_takes_up_stays;
    a_touched_file_is_read_and_not_embedded_again;
    an_unchanged_file_is_not_read_and_the_model_is_asked_nothing;
    a_file_changed_within_the_step_of_a_clock_is_read_again;
    a_file_that_changes_or_goes_while_it_is_read_is_put_off_to_the_next_update;
    a_clock_that_goes_backwards_hides_no_change;
    a_broken_file_is_named_with_its_reason_and_costs_nothing_else;
    an_interrupted_update_keeps_what_was_finished_and_the_next_one_goes_on;
    rules_of_a_folder_are_kept_and_changed_ones_count;
    #[cfg(unix)]
    names_that_are_no_utf_8_links_pipes_and_locked_folders_do_no_harm;
    a_second_writer_is_told_who_holds_the_index_and_readers_go_on;
    forgotten_folders_are_gone_and_cleaning_gives_back_room;
}

fn counts(report: &omniburn_index::Report) -> [u64; 7] {
    let failed = report.failed.len() as u64;
    [report.new, report.changed, report.unchanged, report.removed, report.renamed, report.passed_over, failed]
}

fn what_is_new_changed_unchanged_and_gone_is_counted_and_found(store: Store) {
    let (place, words) = (Place::new(store), Words::default());
    place.write("bread.txt", "How to bake bread at home");
    place.write("notes/ship.md", "A ship under sail on the sea");
    place.write("program.bin", [0u8, 159, 146, 150, 0, 0, 1, 2]);
    assert_eq!(counts(&place.update(&words)), [2, 0, 0, 0, 0, 1, 0]);
    assert_eq!(place.found("bake bread")[0], "bread.txt");
    assert_eq!(counts(&place.update(&words)), [0, 0, 2, 0, 0, 1, 0]);
    let before = words.embedded.load(Ordering::SeqCst);

    place.write("bread.txt", "A list of mountains and their heights, much longer");
    fs::remove_file(place.files.join("notes/ship.md")).unwrap();
    assert_eq!(counts(&place.update(&words)), [0, 1, 0, 1, 0, 1, 0]);
    assert_eq!(words.embedded.load(Ordering::SeqCst), before + 1);
    assert_eq!(place.found("mountains"), ["bread.txt"]);
    assert!(place.hits("sail", &SearchOptions { mode: omniburn_index::Mode::Words, ..Default::default() }).is_empty());
    assert_eq!(place.open().status().unwrap().vectors, 1);
}

fn copies_cost_no_compute_and_renamed_files_keep_their_vectors(store: Store) {
    let (place, words) = (Place::new(store), Words::default());
    let path = place.write("a.txt", "One content in several places");
    place.write("copy/b.txt", "One content in several places");
    assert_eq!(counts(&place.update(&words)), [2, 0, 0, 0, 0, 0, 0]);
    assert_eq!(words.embedded.load(Ordering::SeqCst), 1);
    let found = place.found("content places");
    assert_eq!(found.len(), 2, "{found:?}");

    let to = place.files.join("renamed.txt");
    fs::rename(&path, &to).unwrap();
    assert_eq!(counts(&place.update(&words)), [0, 0, 1, 0, 1, 0, 0]);
    assert_eq!(words.embedded.load(Ordering::SeqCst), 1);
    let found = place.found("renamed");
    assert_eq!(found[0], "renamed.txt", "the new name is searched, too");
    fs::remove_dir_all(place.files.join("copy")).unwrap();
    assert_eq!(counts(&place.update(&words)), [0, 0, 1, 1, 0, 0, 0]);
    assert_eq!(place.found("content places"), ["renamed.txt"]);
}

fn a_content_that_one_file_leaves_and_another_takes_up_stays(store: Store) {
    let (place, words) = (Place::new(store), Words::default());
    place.write("a.txt", "The first content");
    place.update(&words);
    fs::rename(place.files.join("a.txt"), place.files.join("b.txt")).unwrap();
    place.write("a.txt", "The second content, which is longer");
    let report = place.update(&words);
    assert_eq!((report.new, report.changed, words.embedded.load(Ordering::SeqCst)), (1, 1, 2));
    assert_eq!(place.found("first")[0], "b.txt");
    assert_eq!(place.found("second longer")[0], "a.txt");
}

fn a_touched_file_is_read_and_not_embedded_again(store: Store) {
    let (place, words) = (Place::new(store), Words::default());
    let path = place.write("a.txt", "Something");
    place.update(&words);
    age(&path, 50_000);
    assert_eq!(counts(&place.update(&words)), [0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(words.embedded.load(Ordering::SeqCst), 1);
}

/// A model that may say what it is, and nothing else.
struct Silent;

impl Embedder for Silent {
    fn profile(&self) -> EmbedderProfile {
        Words::default().profile()
    }

    fn count_tokens(&self, text: &str) -> Result<usize, Fault> {
        panic!("tokens of {text}")
    }

    fn embed(
        &self,
        _: &mut dyn Iterator<Item = Content>,
        _: &mut dyn FnMut(Result<Vec<Vector>, Fault>) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        panic!("contents to embed")
    }

    fn embed_query(&self, text: &str) -> Result<Vec<f32>, Fault> {
        panic!("the query {text}")
    }
}

fn an_unchanged_file_is_not_read_and_the_model_is_asked_nothing(store: Store) {
    let place = Place::new(store);
    let paths: Vec<_> =
        (0..30).map(|file| place.write(&format!("{file}.txt"), format!("one text of {file:02}"))).collect();
    place.write("broken.pdf", "%PDF-1.7\nthis is no PDF");
    place.write("program.bin", [0u8, 159, 146, 150, 0, 0, 1, 2]);
    place.update(&Words::default());
    let rows = |index: &Index| {
        let mut lines = Vec::new();
        index.export(&mut lines).unwrap();
        let lines = String::from_utf8(lines).unwrap();
        lines.lines().skip(1).map(String::from).collect::<Vec<_>>()
    };
    let before = rows(&place.open());
    // Other bytes under the same size and time: whoever reads the file finds another content.
    for path in &paths {
        let modified = fs::metadata(path).unwrap().modified().unwrap();
        let other = fs::read_to_string(path).unwrap().replace("one", "two");
        fs::write(path, other).unwrap();
        fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
    }
    let mut index = place.open();
    let report = index.update(&Silent, &[place.root()], Duration::ZERO, &quiet()).unwrap();
    assert_eq!((counts(&report), report.embedded), ([0, 0, 30, 0, 0, 1, 1], 0));
    assert_eq!(rows(&index), before);
}

fn a_file_changed_within_the_step_of_a_clock_is_read_again(store: Store) {
    let (place, words) = (Place::new(store), Words::default());
    let path = place.files.join("a.txt");
    fs::write(&path, "one").unwrap();
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    place.update(&words);
    // The same length and the same time of change.
    fs::write(&path, "two").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    assert_eq!(counts(&place.update(&words)), [0, 1, 0, 0, 0, 0, 0]);
}

/// A model beside which something happens to a file whose text it counts the tokens of.
struct Meanwhile<'a> {
    words: Words,
    happens: &'a (dyn Fn(&str) + Sync),
}

impl Embedder for Meanwhile<'_> {
    fn profile(&self) -> EmbedderProfile {
        self.words.profile()
    }

    fn count_tokens(&self, text: &str) -> Result<usize, Fault> {
        (self.happens)(text);
        self.words.count_tokens(text)
    }

    fn embed(
        &self,
        contents: &mut dyn Iterator<Item = Content>,
        take: &mut dyn FnMut(Result<Vec<Vector>, Fault>) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        self.words.embed(contents, take)
    }

    fn embed_query(&self, text: &str) -> Result<Vec<f32>, Fault> {
        self.words.embed_query(text)
    }
}

fn a_file_that_changes_or_goes_while_it_is_read_is_put_off_to_the_next_update(store: Store) {
    let place = Place::new(store);
    let [grows, goes, shrinks] = ["grows", "goes", "shrinks"]
        .map(|name| (name, place.write(&format!("{name}.txt"), format!("a harbour that {name}"))));
    place.write("stays.txt", "a harbour that stays");
    let happens = |text: &str| {
        for (name, path) in [&grows, &goes, &shrinks].into_iter().filter(|(name, _)| text.contains(name)) {
            match *name {
                "goes" => drop(fs::remove_file(path)),
                "grows" => fs::write(path, "a lighthouse that was written into it meanwhile").unwrap(),
                _ => fs::write(path, "a cliff").unwrap(),
            }
        }
    };
    let model = Meanwhile { words: Words::default(), happens: &happens };
    let mut index = Index::open_or_begin(&place.index, &model.profile()).unwrap();
    let report = index.update(&model, &[place.root()], Duration::ZERO, &quiet()).unwrap();
    drop(index);
    assert_eq!(counts(&report), [1, 0, 0, 0, 0, 0, 3]);
    assert!(report.failed.iter().all(|failed| failed.fault.message.contains("the next update reads it again")));
    assert_eq!(place.found("harbour"), ["stays.txt"]);
    let report = place.update(&Words::default());
    assert_eq!(counts(&report), [2, 0, 1, 0, 0, 0, 0]);
    assert_eq!([place.found("lighthouse")[0].as_str(), &place.found("cliff")[0]], ["grows.txt", "shrinks.txt"]);
    assert_eq!(place.open().status().unwrap().vectors, 3);
}

fn a_clock_that_goes_backwards_hides_no_change(store: Store) {
    let (place, words) = (Place::new(store), Words::default());
    let [changed, new] = ["changed.txt", "new.txt"].map(|name| place.files.join(name));
    let at = |path: &Path, text: &str, time: SystemTime| {
        fs::write(path, text).unwrap();
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    };
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    // The clock was an hour ahead when this was written.
    at(&changed, "one", now + hour);
    assert_eq!(counts(&place.update(&words)), [1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(counts(&place.update(&words)), [0, 0, 1, 0, 0, 0, 0]);
    // It was put back, and then two hours behind; lengths are the same.
    at(&changed, "two", now);
    at(&new, "six", now - 2 * hour);
    assert_eq!(counts(&place.update(&words)), [1, 1, 0, 0, 0, 0, 0]);
    at(&changed, "ten", now - 2 * hour);
    assert_eq!(counts(&place.update(&words)), [0, 1, 1, 0, 0, 0, 0]);
    assert_eq!((place.found("ten")[0].as_str(), place.found("six")[0].as_str()), ("changed.txt", "new.txt"));
}

fn a_broken_file_is_named_with_its_reason_and_costs_nothing_else(store: Store) {
    let (place, words) = (Place::new(store), Words::default());
    place.write("good.txt", "A good file");
    place.write("broken.pdf", "%PDF-1.7\nthis is no PDF");
    place.write("copy.pdf", "%PDF-1.7\nthis is no PDF");
    place.write("bad.txt", "poison");
    words.failing.lock().unwrap().insert("poison".into(), Fault::new("not_finite", "a vector with NaN"));
    let report = place.update(&words);
    assert_eq!(counts(&report), [1, 0, 0, 0, 0, 0, 3]);
    let kinds: Vec<&str> = report.failed.iter().map(|failed| failed.fault.kind.as_str()).collect();
    assert_eq!(kinds, ["not_finite", "corrupt", "corrupt"]);
    assert_eq!(place.found("good file"), ["good.txt"]);
    // It is remembered, and not tried again as long as it is the same.
    let again = place.update(&words);
    assert_eq!(counts(&again), [0, 0, 1, 0, 0, 0, 3]);
    assert_eq!(place.open().status().unwrap().failed, again.failed);
    words.failing.lock().unwrap().clear();
    place.write("bad.txt", "poison no more");
    assert_eq!(counts(&place.update(&words)), [1, 0, 1, 0, 0, 0, 2]);
}

fn an_interrupted_update_keeps_what_was_finished_and_the_next_one_goes_on(store: Store) {
    let (place, words) = (Place::new(store), Words::default());
    for i in 0..60 {
        place.write(&format!("{i}.txt"), format!("File number {i} about nothing"));
    }
    let asked = AtomicUsize::new(0);
    let mut index = Index::open_or_begin(&place.index, &words.profile()).unwrap();
    let stop = || asked.fetch_add(1, Ordering::SeqCst) > 90;
    let control = Control { interrupted: &stop, progress: &|_| {} };
    let stopped = index.update(&words, &[place.root()], Duration::ZERO, &control);
    assert!(matches!(stopped, Err(IndexError::Interrupted)));
    let (kept, computed) = (place.open().status().unwrap().vectors, words.embedded.load(Ordering::SeqCst));
    assert!((1..60).contains(&kept), "{kept}");
    let report = place.update(&words);
    assert_eq!((report.new + report.unchanged, report.unchanged), (60, kept));
    assert!(words.embedded.load(Ordering::SeqCst) - computed == 60 - kept as usize);
}

fn rules_of_a_folder_are_kept_and_changed_ones_count(store: Store) {
    let (place, words) = (Place::new(store), Words::default());
    place.write("a.txt", "plain words");
    place.write("b.rs", "fn words() {}");
    place.write("c.html", "<p>words</p>");
    let update = |rules: Rules| {
        let mut index = Index::open_or_begin(&place.index, &words.profile()).unwrap();
        let root = Root { path: place.files.clone(), rules };
        index.update(&words, &[root], Duration::ZERO, &quiet()).unwrap()
    };
    assert_eq!(update(Rules { kinds: vec!["text".into(), "code".into()], ..Rules::default() }).new, 2);
    // Without folders: all that are kept, with their rules.
    let mut index = Index::open_or_begin(&place.index, &words.profile()).unwrap();
    assert_eq!(index.update(&words, &[], Duration::ZERO, &quiet()).unwrap().unchanged, 2);
    let report = update(Rules { kinds: vec!["html".into()], ..Rules::default() });
    assert_eq!((report.new, place.open().status().unwrap().files), (1, vec![(Kind::Html, 1)]));
    let report = update(Rules { exclude: vec!["*.html".into()], ..Rules::default() });
    assert_eq!((report.new, report.removed), (2, 1));
}

#[cfg(unix)]
fn names_that_are_no_utf_8_links_pipes_and_locked_folders_do_no_harm(store: Store) {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    let (place, words) = (Place::new(store), Words::default());
    let odd = place.files.join(std::ffi::OsStr::from_bytes(b"caf\xe9.txt"));
    fs::write(&odd, "an odd name").unwrap();
    age(&odd, 9999);
    place.write("in/secret.txt", "behind a lock");
    place.update(&words);
    assert_eq!(place.hits("odd name", &SearchOptions::default())[0].path, odd);

    std::os::unix::fs::symlink(&place.files, place.files.join("loop")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(place.files.join("pipe.txt")).status().unwrap();
    assert!(made.success());
    let folder = place.files.join("in");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o000)).unwrap();
    let report = place.update(&words);
    let readable = fs::read_dir(&folder).is_ok();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    // Whoever may read everything reads this, too.
    if readable {
        assert_eq!(counts(&report), [0, 0, 2, 0, 0, 0, 0]);
    } else {
        assert_eq!(counts(&report), [0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(place.found("behind lock")[0], "secret.txt", "what cannot be seen is not taken for gone");
    }
}

fn a_second_writer_is_told_who_holds_the_index_and_readers_go_on(store: Store) {
    let (place, words) = (Place::new(store), Words::default());
    place.write("a.txt", "Something to find");
    place.update(&words);
    let lock = store.hold(&place);
    let error = place.try_update(&words).unwrap_err();
    assert!(
        matches!(&error, IndexError::Locked { holder, .. } if holder == &format!("process {}", std::process::id())),
        "{error}"
    );
    assert_eq!(place.found("something"), ["a.txt"]);
    drop(lock);
    place.update(&words);
}

fn forgotten_folders_are_gone_and_cleaning_gives_back_room(store: Store) {
    let (place, words) = (Place::new(store), Words::default());
    for i in 0..300 {
        place.write(&format!("{}/{i}.txt", i % 2), format!("word{i} and word{}", i + 1));
    }
    let mut index = Index::open_or_begin(&place.index, &words.profile()).unwrap();
    let root = |i: usize| Root { path: place.files.join(i.to_string()), rules: Rules::default() };
    index.update(&words, &[root(0), root(1)], Duration::ZERO, &quiet()).unwrap();
    let all = |index: &Index| -> Vec<(String, f32)> {
        let found =
            crate::support::hits(index, "word7 word8", &SearchOptions { limit: 400, ..Default::default() }).unwrap();
        found.into_iter().map(|hit| (crate::support::name(&hit.path), hit.scores.semantic.unwrap_or(9.0))).collect()
    };
    assert_eq!(index.remove(&root(0).path, Duration::ZERO).unwrap(), 150);
    assert!(matches!(index.remove(&root(0).path, Duration::ZERO), Err(IndexError::Missing { .. })));
    let before = all(&index);
    let size = index.status().unwrap().bytes;
    index.clean(Duration::ZERO).unwrap();
    index.verify().unwrap();
    assert_eq!(all(&index), before);
    assert!(index.status().unwrap().bytes < size);
    assert_eq!(index.status().unwrap().vectors, 150);
}
