//! `report.md`: the pictures, and every figure that the commands printed.

use crate::data::Data;
use crate::recipe::{self, Recipe};
use crate::step::Done;
use crate::workspace;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Longest list of numbers that is shown as one figure.
const LONGEST: usize = 32;

/// What is reported.
pub struct Report<'a> {
    /// The settings.
    pub recipe: &'a Recipe,
    /// The data.
    pub data: &'a Data,
    /// The folder with all results.
    pub out: &'a Path,
    /// The steps.
    pub done: &'a [Done],
}

impl Report<'_> {
    /// Writes `report.md`, and says where.
    ///
    /// # Errors
    /// If a figure cannot be read or the report not written.
    pub fn write(&self) -> Result<PathBuf> {
        let path = self.out.join("report.md");
        workspace::write(&path, self.text()?.as_bytes())?;
        Ok(path)
    }

    fn text(&self) -> Result<String> {
        let mut text = format!(
            "# Tessera: the {} demo\n\nData: {}. Commands and times are at the end.\n\n## Pictures by class\n\n",
            self.recipe.name(),
            self.data.description
        );
        text += &self.pictures(vec![recipe::all(self.out).join("grid.png")]);
        text += "| class | pictures |\n|---|---|\n";
        for class in &self.data.classes {
            let grid = recipe::samples(self.out, class).join("grid.png");
            writeln!(text, "| {class} | ![{class}]({}) |", self.relative(&grid))?;
        }
        text += "\n";
        for (heading, name) in self.recipe.measured() {
            // What a recipe compares its model with comes after a first report.
            if self.out.join(name).with_added_extension("json").exists() {
                write!(text, "## {heading}\n\n{}", self.measured(name)?)?;
            }
        }
        let entropy = self.pictures(vec![self.out.join("entropy.svg")]);
        if !entropy.is_empty() {
            write!(text, "## The tokenizer's latents\n\n{entropy}")?;
        }
        text += "## Commands\n\n| seconds | command |\n|---:|---|\n";
        for Done { step, seconds } in self.done {
            let seconds = seconds.map_or("before".into(), |seconds| format!("{seconds:.1}"));
            writeln!(text, "| {seconds} | `{}` |", step.line(self.out))?;
        }
        Ok(text)
    }

    /// The figures in `NAME.json`, and the pictures in the folder `NAME`.
    fn measured(&self, name: &str) -> Result<String> {
        let file = self.out.join(name).with_added_extension("json");
        let json = workspace::read(&file)?;
        let json = serde_json::from_slice(&json)
            .with_context(|| format!("{} is not JSON", file.display()))?;
        Ok(figures(&json) + &self.pictures(workspace::list(&self.out.join(name))))
    }

    fn pictures(&self, files: Vec<PathBuf>) -> String {
        let is_picture =
            |file: &PathBuf| file.extension().is_some_and(|e| e == "png" || e == "svg");
        let shown = files
            .into_iter()
            .filter(is_picture)
            .filter(|file| file.exists())
            .map(|file| {
                let name = file
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                format!("![{name}]({})\n\n", self.relative(&file))
            });
        shown.collect()
    }

    /// As a link in the report.
    fn relative(&self, file: &Path) -> String {
        let file = file.strip_prefix(self.out).unwrap_or(file);
        file.to_string_lossy().replace(' ', "%20")
    }
}

/// Tables of what a command printed: one of its single figures, and one of each list of records. Matrices and long
/// lists are left to the plots.
fn figures(json: &Value) -> String {
    let classes = json["classes"].as_array().map_or(&[][..], Vec::as_slice);
    let mut tables = Tables {
        classes,
        rows: Vec::new(),
        records: String::new(),
    };
    tables.collect("", json);
    let mut text = String::new();
    if !tables.rows.is_empty() {
        text += &table(&["figure".into(), "value".into()], &tables.rows);
    }
    text + &tables.records
}

struct Tables<'a> {
    /// What a list of as many records is about.
    classes: &'a [Value],
    rows: Vec<Vec<String>>,
    records: String,
}

impl Tables<'_> {
    fn collect(&mut self, path: &str, value: &Value) {
        match value {
            Value::Object(map) => {
                for (key, value) in map.iter().filter(|(key, _)| *key != "schema") {
                    let path = match path {
                        "" => words(key),
                        path => format!("{path}: {}", words(key)),
                    };
                    self.collect(&path, value);
                }
            }
            Value::Array(items) => match self.records(items) {
                Some(records) => self.records += &records,
                None => self
                    .rows
                    .extend(list(items).map(|list| vec![path.to_owned(), list])),
            },
            value => self
                .rows
                .extend(scalar(value).map(|value| vec![path.to_owned(), value])),
        }
    }

    /// A list of objects of scalars as a table, with the classes in front if it has one for each.
    fn records(&self, items: &[Value]) -> Option<String> {
        let keys: Vec<&String> = items.first()?.as_object()?.keys().collect();
        let row = |item: &Value| {
            keys.iter()
                .map(|key| scalar(&item[key.as_str()]))
                .collect::<Option<Vec<_>>>()
        };
        let mut rows = items.iter().map(row).collect::<Option<Vec<_>>>()?;
        let mut head: Vec<String> = keys.iter().map(|key| words(key)).collect();
        if items.len() == self.classes.len() {
            head.insert(0, "class".into());
            for (row, class) in rows.iter_mut().zip(self.classes) {
                row.insert(0, scalar(class)?);
            }
        }
        Some(table(&head, &rows))
    }
}

fn list(items: &[Value]) -> Option<String> {
    if items.is_empty() || items.len() > LONGEST {
        return None;
    }
    let items = items.iter().map(scalar).collect::<Option<Vec<_>>>()?;
    Some(items.join(", "))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) if number.is_f64() => number.as_f64().map(short),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.replace('|', "\\|")),
        Value::Bool(yes) => Some(if *yes { "yes" } else { "no" }.into()),
        Value::Null => Some("–".into()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Four digits that matter.
fn short(number: f64) -> String {
    if number == 0.0 {
        return "0".into();
    }
    let before_point = number.abs().log10().floor() as i32 + 1;
    format!("{number:.*}", (4 - before_point).clamp(0, 6) as usize)
}

fn words(key: &str) -> String {
    key.replace('_', " ")
}

fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = format!("|{}\n", "---|".repeat(head.len()));
    line(head) + &rule + &rows.iter().map(|row| line(row)).collect::<String>() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Fashion, fashion};
    use serde_json::json;
    use std::fs;
    use xshell::Shell;

    #[test]
    fn numbers_keep_four_digits() {
        let cases = [
            (0.83712, "0.8371"),
            (12.34567, "12.35"),
            (1234.6, "1235"),
            (0.0012346, "0.001235"),
            (0.0, "0"),
        ];
        for (number, text) in cases {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn nested_figures_become_one_table_and_records_another() {
        let printed = json!({
            "schema": "tessera.eval/v1",
            "agreement": { "overall": 0.5, "confusion": [[1, 2], [3, 4]] },
            "rows": [{ "latents": "6 bits", "psnr_db": 20.125 }, { "latents": "5 bits", "psnr_db": 19.0 }],
            "entropy_bits": [1.5, 2.5],
            "floor": null,
        });
        let text = figures(&printed);
        assert!(text.contains("| agreement: overall | 0.5000 |\n"), "{text}");
        assert!(text.contains("| entropy bits | 1.500, 2.500 |\n"), "{text}");
        assert!(
            text.contains(
                "| latents | psnr db |\n|---|---|\n| 6 bits | 20.12 |\n| 5 bits | 19.00 |\n"
            ),
            "{text}"
        );
        assert!(
            !text.contains("confusion") && !text.contains("schema"),
            "{text}"
        );
    }

    #[test]
    fn a_record_of_every_class_is_named_by_it() {
        let printed =
            json!({ "classes": ["coat", "bag"], "per_class": [{ "agreed": 3 }, { "agreed": 1 }] });
        let text = figures(&printed);
        assert!(
            text.contains("| class | agreed |\n|---|---|\n| coat | 3 |\n| bag | 1 |\n"),
            "{text}"
        );
    }

    #[test]
    fn a_report_shows_every_class_every_picture_and_every_command() {
        let sh = Shell::new().unwrap();
        let folder = sh.create_temp_dir().unwrap();
        let out = folder.path();
        for name in ["eval.json", "reconstruction.json"] {
            sh.write_file(out.join(name), r#"{"images": 40}"#).unwrap();
        }
        sh.write_file(out.join("eval/confusion.svg"), "<svg/>")
            .unwrap();
        let recipe = Recipe::Fashion(Fashion::quick());
        let data = Data {
            folder: "/d".into(),
            classes: fashion::CLASSES.map(str::to_owned).to_vec(),
            description: "40 images".into(),
        };
        let steps = recipe.measuring(out, &data.folder, &data.classes);
        let done: Vec<_> = steps
            .into_iter()
            .map(|step| Done {
                step,
                seconds: Some(1.25),
            })
            .collect();
        let report = Report {
            recipe: &recipe,
            data: &data,
            out,
            done: &done,
        };
        let text = fs::read_to_string(report.write().unwrap()).unwrap();
        assert!(
            text.contains("| ankle boot | ![ankle boot](samples/ankle-boot/grid.png) |"),
            "{text}"
        );
        assert!(text.contains("![confusion](eval/confusion.svg)"), "{text}");
        assert!(
            text.contains("`tessera eval -o OUT/eval -m OUT/ar/model --data /d --json -n 4`"),
            "{text}"
        );
        assert_eq!(text.matches("| images | 40 |").count(), 2);
    }
}
