//! What is searched is found: by words, by meaning, by both, with every filter.

use std::time::{Duration, SystemTime};

use omniburn_index::{
    Calibration, Embedder, IndexError, Kind, Locator, MinScore, Modality, Mode, Opened, PairCalibration, Query,
    QueryError, SearchOptions, Sought,
};

use crate::support::{Place, Store, Words, age, hits, name};

crate::support::on_both_stores! {
    the_right_file_comes_first_in_every_mode;
    a_hit_says_where_and_what;
    words_are_found_without_accents_in_parts_and_in_scripts_without_spaces;
    filters_act_inside_both_searches;
    a_filter_that_leaves_little_still_gives_what_there_is;
    a_long_file_does_not_hide_the_others_and_gives_its_best_place;
    a_query_that_looks_for_nothing_is_named;
    likes_of_a_file_are_found_from_its_stored_vectors;
    files_are_opened_by_the_beginning_of_their_id;
    calibrated_scores_make_modalities_comparable_and_cut_what_is_not_related;
    a_page_that_shows_more_than_its_text_is_found_by_both_and_opened_as_an_image;
    tags_are_words_of_their_file_and_said_when_asked_for;
    an_index_of_another_model_is_refused_with_both_named;
}

fn library(store: Store) -> (Place, Words) {
    let (place, words) = (Place::new(store), Words::default());
    place.write("bread.txt", "How to bake bread at home with flour and water");
    place.write("sea/ship.md", "A ship under sail.\nIt crosses the sea.\nThe captain sleeps.");
    place.write("code/sort.rs", "/// Sorts numbers.\nfn sort(numbers: &mut [i32]) {\n    numbers.sort();\n}\n");
    place.write("page.html", "<title>The harbour</title><p>Boats lie in the harbour at night.</p>");
    place.write("cafe.txt", "Le café est fermé. Naïve façade.");
    place.write("tokyo.txt", "東京タワーは赤い。日本の塔です。");
    place.write("red bicycle.png", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR");
    place.write("rain song.wav", b"RIFF\x24\0\0\0WAVEfmt ");
    let report = place.update(&words);
    assert_eq!((report.new, report.failed), (8, vec![]));
    (place, words)
}

fn options(mode: Mode) -> SearchOptions {
    SearchOptions { mode, ..SearchOptions::default() }
}

fn the_right_file_comes_first_in_every_mode(store: Store) {
    let (place, _) = library(store);
    for mode in [Mode::Hybrid, Mode::Semantic, Mode::Words] {
        for (query, first) in [
            ("bake bread at home", "bread.txt"),
            ("a ship under sail", "ship.md"),
            ("sorts numbers", "sort.rs"),
            ("boats in the harbour at night", "page.html"),
        ] {
            assert_eq!(place.found_with(query, &options(mode))[0], first, "{mode:?}: {query}");
        }
    }
    assert_eq!(place.found("red bicycle")[0], "red bicycle.png");
    assert_eq!(place.found("rain song")[0], "rain song.wav");
}

fn a_hit_says_where_and_what(store: Store) {
    let (place, _) = library(store);
    let hit = &place.hits("captain sleeps", &options(Mode::Words))[0];
    assert_eq!((hit.rank, hit.kind, hit.locator), (1, Kind::Text, Locator::Lines { first: 3, last: 3 }));
    assert_eq!(hit.snippet.text, "A ship under sail. It crosses the sea. The captain sleeps.");
    let lit: Vec<&str> = hit.snippet.lit.iter().map(|range| &hit.snippet.text[range.clone()]).collect();
    assert_eq!(lit, ["captain", "sleeps"]);
    assert!(hit.id.len() >= 6 && hit.score > 0.9 && hit.scores.words.is_some() && hit.scores.semantic.is_none());
    let page = &place.hits("harbour", &options(Mode::Hybrid))[0];
    assert_eq!(page.title.as_deref(), Some("The harbour"));
    let song = &place.hits("rain song", &options(Mode::Semantic))[0];
    assert_eq!(song.locator, Locator::Time { start_s: 0.0, end_s: 240.0 });
}

fn words_are_found_without_accents_in_parts_and_in_scripts_without_spaces(store: Store) {
    let (place, _) = library(store);
    let words = |query: &str| place.found_with(query, &options(Mode::Words));
    assert_eq!(words("cafe facade"), ["cafe.txt"]);
    assert_eq!(words("FERMÉ"), ["cafe.txt"]);
    assert_eq!(words("arbou"), ["page.html"], "a part of a word, where no whole word matches");
    assert_eq!(words("東京タワー"), ["tokyo.txt"]);
    assert_eq!(words("日本"), ["tokyo.txt"], "two characters, which no index of three has");
    assert_eq!(words("unheard"), Vec::<String>::new());
}

fn filters_act_inside_both_searches(store: Store) {
    let (place, _) = library(store);
    for mode in [Mode::Hybrid, Mode::Semantic, Mode::Words] {
        let found = |query: &str| place.found_with(query, &options(mode));
        assert_eq!(found("ship sail bread type:code numbers"), ["sort.rs"], "{mode:?}");
        assert_eq!(found("ship bread numbers ext:md,rs -type:code"), ["ship.md"], "{mode:?}");
        let folder = place.files.join("sea");
        assert_eq!(
            found(&format!("ship bread numbers \"in\" in:{}", folder.display())),
            Vec::<String>::new(),
            "{mode:?}"
        );
        assert_eq!(found(&format!("ship bread in:{}", folder.display())), ["ship.md"], "{mode:?}");
        assert_eq!(found("\"under sail\" bread"), ["ship.md"], "{mode:?}");
        assert!(!found("ship bread -captain").contains(&"ship.md".into()), "{mode:?}");
    }
    age(&place.files.join("bread.txt"), 40 * 86_400);
    place.update(&Words::default());
    assert_eq!(place.found("bread ship before:30d"), ["bread.txt"]);
    assert!(!place.found("bread ship after:30d").contains(&"bread.txt".into()));
}

fn a_filter_that_leaves_little_still_gives_what_there_is(store: Store) {
    let (place, words) = (Place::new(store), Words::default());
    for i in 0..700 {
        place.write(&format!("{i}.txt"), format!("the same words again number{i}"));
    }
    place.write("rare/one.md", "something else entirely");
    place.update(&words);
    for mode in [Mode::Hybrid, Mode::Semantic] {
        let found = place.found_with("the same words again ext:md", &options(mode));
        assert_eq!(found, ["one.md"], "{mode:?}");
    }
}

fn a_long_file_does_not_hide_the_others_and_gives_its_best_place(store: Store) {
    let (place, words) = (Place::new(store), Words::default());
    let line = |i: usize| format!("The sea is wide and deep, line {i}, and the sea is blue.\n");
    place.write("long.txt", (0..4000).map(line).collect::<String>() + "The lighthouse keeper waves.\n");
    place.write("short.txt", "A note of the sea.");
    place.update(&words);
    let found = place.hits("the sea is wide and blue", &options(Mode::Hybrid));
    assert_eq!(found.iter().map(|hit| name(&hit.path)).collect::<Vec<_>>(), ["long.txt", "short.txt"]);
    let hit = &place.hits("lighthouse keeper", &options(Mode::Words))[0];
    assert_eq!(hit.locator, Locator::Lines { first: 4001, last: 4001 });
    let several = SearchOptions { per_file: 3, limit: 3, ..Default::default() };
    assert_eq!(place.found_with("the sea is wide", &several), ["long.txt"; 3]);
}

fn a_query_that_looks_for_nothing_is_named(store: Store) {
    let (place, _) = library(store);
    let index = place.open();
    let search = |text: &str| {
        let query = Query::parse(text, None, SystemTime::now())?;
        index.search(&query, Sought::Words, &options(Mode::Words))
    };
    assert!(matches!(search("type:image"), Err(IndexError::Query(QueryError::OnlyFilters))));
    assert!(matches!(search("  "), Err(IndexError::Query(QueryError::Empty))));
    assert!(matches!(search("\"open"), Err(IndexError::Query(QueryError::UnclosedQuote { .. }))));
    for odd in ["\"", "a OR b AND NOT (", "col:x NEAR(y)", "*", "'; DROP TABLE files; --", "\u{0}x"] {
        let _ = search(odd);
    }
    assert_eq!(search("bread").unwrap().len(), 1);
}

fn likes_of_a_file_are_found_from_its_stored_vectors(store: Store) {
    let (place, words) = library(store);
    place.write("sea/sailing.txt", "A ship under sail crosses the sea");
    place.update(&words);
    let index = place.open();
    let path = place.files.join("sea/ship.md");
    let (vector, modality) = index.stored_vector(&path).unwrap().unwrap();
    assert_eq!(modality, Modality::Text);
    let query = Query::parse("type:text", None, SystemTime::now()).unwrap();
    let found = index.search(&query, Sought::Like(&path, &vector, modality), &SearchOptions::default()).unwrap();
    assert_eq!(name(&found[0].path), "sailing.txt");
    assert!(found.iter().all(|hit| hit.path != path && hit.kind == Kind::Text));
    assert_eq!(index.stored_vector(&place.files.join("nowhere")).unwrap(), None);
    age(&path, 5);
    assert_eq!(index.stored_vector(&path).unwrap(), None, "a file that changed has no stored vector");
}

fn files_are_opened_by_the_beginning_of_their_id(store: Store) {
    let (place, _) = library(store);
    let index = place.open();
    let id = place.hits("captain", &options(Mode::Words)).remove(0).id;
    let text = |locator: Locator| match index.get(&id, locator).unwrap() {
        Opened::Text { text, .. } => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(text(Locator::Lines { first: 2, last: 9 }), "It crosses the sea.\nThe captain sleeps.");
    assert!(text(Locator::Whole).starts_with("A ship"));
    assert!(matches!(index.get(&id, Locator::Lines { first: 9, last: 9 }), Err(IndexError::File { .. })));
    assert!(matches!(index.get(&id, Locator::Page(1)), Err(IndexError::File { .. })));
    for wrong in ["", "abc", "zzzzzz", "0000000000000000", "00000000000000000"] {
        assert!(matches!(index.get(wrong, Locator::Whole), Err(IndexError::UnknownId { .. })), "{wrong}");
    }
    let image = place.hits("red bicycle", &options(Mode::Hybrid)).remove(0);
    assert!(matches!(index.get(&image.id, Locator::Whole), Ok(Opened::File { kind: Kind::Image, .. })));
}

fn calibrated_scores_make_modalities_comparable_and_cut_what_is_not_related(store: Store) {
    let (place, words) = library(store);
    let mut index = place.open();
    let auto = SearchOptions { min_score: MinScore::Auto, ..Default::default() };
    assert!(matches!(hits(&index, "bread", &auto), Err(IndexError::NotCalibrated { .. })));
    // Unrelated texts of this model have cosines about 0 with a deviation of an eighth.
    let cosines: Vec<f32> = (0..2000).map(|i| (i as f32 / 2000.0 - 0.5) * 0.8).collect();
    let pair = |item| PairCalibration::of(Modality::Text, item, cosines.clone(), None).unwrap();
    let pairs = Modality::ALL.into_iter().map(pair).collect();
    let calibration = Calibration { identity: words.profile().identity, centre: Vec::new(), pairs };
    let other = Calibration { identity: "another".into(), ..calibration.clone() };
    index.calibrate(other).unwrap();
    assert!(matches!(hits(&index, "bread", &auto), Err(IndexError::NotCalibrated { .. })));
    let mut wrong = calibration.clone();
    wrong.centre = vec![0.0; 3];
    assert!(matches!(index.calibrate(wrong), Err(IndexError::Calibration { found: 3, .. })));
    index.calibrate(calibration.clone()).unwrap();
    let found = hits(&index, "bake bread home flour", &auto).unwrap();
    assert_eq!(found.iter().map(|hit| name(&hit.path)).collect::<Vec<_>>(), ["bread.txt"]);
    assert!(found[0].score >= 0.75 && found[0].score <= 1.0);
    assert_eq!(hits(&index, "quantum chromodynamics lecture", &auto).unwrap(), []);
    // A word that every text has makes nothing related, one that a single text has does.
    let by_words = |text: &str| {
        let auto = SearchOptions { mode: Mode::Words, ..auto.clone() };
        let query = Query::parse(text, None, SystemTime::now()).unwrap();
        index.search(&query, Sought::Words, &auto).unwrap().len()
    };
    assert_eq!((by_words("the"), by_words("captain")), (0, 1));
    let some = SearchOptions { min_score: MinScore::At(0.2), ..Default::default() };
    assert!(hits(&index, "bread", &some).unwrap().iter().all(|hit| hit.score >= 0.2));
}

/// A PDF of a page with an area and these words, and of one with a long line and nothing else.
fn drawn_pdf(words: &str) -> Vec<u8> {
    let long = "A line that is long enough to say of itself what the page shows to whoever looks at it";
    let bodies = [
        format!("0 0 100 100 re f\nBT /F1 12 Tf 20 150 Td ({words}) Tj ET"),
        format!("0 0 100 100 re f\nBT /F1 12 Tf 20 150 Td ({long}) Tj ET"),
    ];
    let mut file = "%PDF-1.4\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n\
        2 0 obj\n<< /Type /Pages /Kids [4 0 R 6 0 R] /Count 2 >>\nendobj\n\
        3 0 obj\n<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>\nendobj\n"
        .to_string();
    for (at, body) in bodies.iter().enumerate() {
        let (page, content) = (4 + 2 * at, 5 + 2 * at);
        file += &format!(
            "{page} 0 obj\n<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents {content} 0 R \
             /Resources << /Font << /F1 3 0 R >> >> >>\nendobj\n\
             {content} 0 obj\n<< /Length {} >>\nstream\n{body}\nendstream\nendobj\n",
            body.len()
        );
    }
    (file + "trailer << /Size 8 /Root 1 0 R >>\n%%EOF").into_bytes()
}

fn a_page_that_shows_more_than_its_text_is_found_by_both_and_opened_as_an_image(store: Store) {
    let (place, words) = (Place::new(store), Words::default());
    place.write("scan.pdf", drawn_pdf("Few words"));
    assert_eq!(place.update(&words).failed, vec![]);
    let image = &place.hits("drawing 1024", &options(Mode::Semantic))[0];
    assert_eq!((image.kind, image.locator, image.snippet.text.as_str()), (Kind::Pdf, Locator::Page(1), ""));
    let text = &place.hits("few", &options(Mode::Words))[0];
    assert_eq!((text.locator, text.snippet.text.as_str()), (Locator::Page(1), "Few words"));
    let index = place.open();
    assert_eq!(index.status().unwrap().vectors, 3);
    let is_png = |opened: &Opened| matches!(opened, Opened::Part { kind: Kind::Image, bytes, .. } if bytes.starts_with(b"\x89PNG"));
    assert!(is_png(&index.get(&text.id, Locator::Page(1)).unwrap()));
    assert!(
        matches!(index.get(&text.id, Locator::Page(2)).unwrap(), Opened::Text { text, .. } if text.contains("long enough"))
    );
    assert!(is_png(&index.page_image(&text.id, 2).unwrap()));
    assert!(matches!(index.page_image(&text.id, 3), Err(IndexError::File { .. })));
}

fn tags_are_words_of_their_file_and_said_when_asked_for(store: Store) {
    let (place, words) = (Place::new(store), Words::default());
    let mut frames = Vec::new();
    for (name, value) in [(b"TIT2", "The salt road"), (b"TPE1", "Mule Train")] {
        frames.extend(name);
        frames.extend((value.len() as u32 + 1).to_be_bytes());
        frames.extend([0, 0, 0]);
        frames.extend(value.bytes());
    }
    let mut song = b"ID3\x03\0\0\0\0\0".to_vec();
    song.push(frames.len() as u8);
    song.extend(frames);
    for _ in 0..8 {
        song.extend([0xff, 0xfb, 0x90, 0xc4]);
        song.resize(song.len() + 413, 0);
    }
    place.write("track 01.mp3", song);
    assert_eq!(place.update(&words).failed, vec![]);
    let hits = place.hits("mule", &options(Mode::Words));
    // The two segments of a file share its tags, which count once.
    assert_eq!((hits.len(), hits[0].title.as_deref()), (1, Some("The salt road")));
    assert_eq!(hits[0].snippet.text, "The salt road Mule Train");
    let about = place.open().about(&hits[0].id, true).unwrap();
    let tags: Vec<(&str, &str)> = about.tags.iter().map(|tag| (tag.name, tag.value.as_str())).collect();
    assert_eq!(tags, [("title", "The salt road"), ("artist", "Mule Train")]);
    assert_eq!((about.kind, about.place, about.taken_ns), (Kind::Audio, None, None));
}

fn an_index_of_another_model_is_refused_with_both_named(store: Store) {
    let (place, _) = library(store);
    let other = Words { identity: "words/2".into(), ..Words::default() };
    let error = place.try_update(&other).unwrap_err().to_string();
    assert!(error.contains("words/1") && error.contains("words/2") && error.contains("--index"), "{error}");
    let index = place.open();
    assert!(matches!(index.agree(&other.profile()), Err(IndexError::IdentityMismatch { .. })));
    let _ = Duration::ZERO;
}
