//! Charts as text: SVG names what it shows.

use tessera_plots::{Line, Look, bars, cells, color, lines};

#[test]
fn colors_run_from_dark_to_light_and_end_where_they_end() {
    assert_eq!([color(-1.0), color(0.0)], [[68, 1, 84]; 2]);
    assert_eq!([color(1.0), color(7.0)], [[253, 231, 37]; 2]);
    assert_eq!(color(0.5), [33, 144, 141]);
}

#[test]
fn a_chart_holds_its_labels_and_is_refused_under_another_ending() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chart.svg");
    let read = || std::fs::read_to_string(&file).unwrap();
    let labels = ["zero", "one"].map(String::from);
    bars(&file, "Title", &labels, &[1.0, 2.5], "bits").unwrap();
    let text = read();
    assert!(
        text.starts_with("<svg") && text.contains("one") && text.contains("Title"),
        "{text}"
    );
    let line = |name: &str, look| Line {
        name: name.into(),
        look,
        points: vec![(0.0, 1.0), (10.0, 2.0)],
    };
    let both = [line("layer 1", Look::Of(0.0)), line("mean", Look::Bold)];
    lines(&file, "Over time", ["time", "experts"], 0.0..10.0, &both).unwrap();
    let text = read();
    for word in ["Over time", "layer 1", "mean", "experts"] {
        assert!(text.contains(word), "{word}");
    }
    let loads = [vec![12.5, 7.25], vec![0.0, 1.0]];
    cells(&file, "Load", ["expert", "layer"], &loads).unwrap();
    let text = read();
    assert!(text.contains("12.5") && text.contains("layer"), "{text}");
    let other = bars(&folder.path().join("chart.png"), "Title", &[], &[], "bits");
    assert!(other.unwrap_err().to_string().ends_with("ends in .svg"));
    let nan = bars(&file, "Title", &["nan".into()], &[f64::NAN], "bits");
    assert!(nan.unwrap_err().to_string().contains("not finite (NaN)"));
}
