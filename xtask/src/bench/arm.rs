//! An arm: a program that runs cases as it is asked, one JSON object a line; `benches/peers/protocol.py` says which.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

/// Lines of what a program says on standard error that are kept for when it ends.
const KEPT_LINES: usize = 4;

/// A running arm. It waits in a read while another one computes, and ends when it is dropped.
pub struct Arm {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    said: Arc<Mutex<VecDeque<String>>>,
    /// Reads standard error to its end.
    listener: JoinHandle<()>,
    /// What it is, in its own words.
    pub ready: String,
}

/// What an arm says of a case.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// Milliseconds of each run.
    pub ms: Vec<f64>,
    /// Operations of a run, where the arm counts them.
    pub flops: Option<f64>,
    /// What came of the last run, where it was asked for and the arm gives it away.
    pub found: Option<Found>,
}

/// What an arm computed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// The texts of the case, from ours.
    pub texts: Vec<String>,
    /// A unit vector an input.
    pub vectors: Vec<Vec<f64>>,
}

impl Found {
    fn read(said: &Value) -> Option<Self> {
        let numbers = |vector: &Value| vector.as_array()?.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>();
        let vectors = said["vectors"].as_array()?.iter().map(numbers).collect::<Option<_>>()?;
        let texts = said["texts"].as_array().map(Vec::as_slice).unwrap_or_default();
        Some(Self { texts: texts.iter().filter_map(|text| text.as_str().map(String::from)).collect(), vectors })
    }

    /// The least cosine of the vectors of each input, where both have as many vectors as long.
    pub fn cosine(&self, other: &Self) -> Option<f64> {
        let alike = |(a, b): (&Vec<f64>, &Vec<f64>)| {
            let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
            (a.len() == b.len()).then(|| product(a, b) / (product(a, a) * product(b, b)).sqrt())
        };
        let same = self.vectors.len() == other.vectors.len() && !self.vectors.is_empty();
        let cosines = self.vectors.iter().zip(&other.vectors).map(alike).collect::<Option<Vec<f64>>>();
        // What is no number is below every limit.
        let least =
            |all: Vec<f64>| all.into_iter().map(|one| if one.is_nan() { -1.0 } else { one }).fold(1.0, f64::min);
        cosines.filter(|_| same).map(least)
    }
}

impl Arm {
    /// Starts a program and waits until it is ready.
    ///
    /// # Errors
    /// A sentence on why it is not.
    pub fn start(mut command: Command) -> Result<Self, String> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("{}: {e}", command.get_program().to_string_lossy()))?;
        let stdout = BufReader::new(child.stdout.take().expect("standard output was piped above"));
        let stderr = BufReader::new(child.stderr.take().expect("standard error was piped above"));
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&said);
        // It is read all the time, or a program that warns a lot would wait for us.
        let listener = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok).filter(|line| !line.trim().is_empty()) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push_back(line);
                if kept.len() > KEPT_LINES {
                    kept.pop_front();
                }
            }
        });
        let stdin = child.stdin.take();
        let mut arm = Self { child, stdin, stdout, said, listener, ready: String::new() };
        let first = arm.read()?;
        let ready = first["ready"].as_str().ok_or_else(|| format!("began with {first}"))?;
        arm.ready = ready.to_string();
        Ok(arm)
    }

    /// Runs a case.
    ///
    /// # Errors
    /// What the arm says in place of times, or that it ended.
    pub fn run(&mut self, case: &str, warm_up: usize, runs: usize) -> Result<Answer, String> {
        self.answer(&json!({ "case": case, "warm_up": warm_up, "runs": runs }))
    }

    /// Runs a case for the first time, of these texts where it is one of texts and they are known.
    ///
    /// # Errors
    /// As [`Arm::run`].
    pub fn first(&mut self, case: &str, texts: Option<&[String]>) -> Result<Answer, String> {
        self.answer(&json!({ "case": case, "warm_up": 1, "runs": 1, "vectors": true, "texts": texts }))
    }

    fn answer(&mut self, question: &Value) -> Result<Answer, String> {
        let said = self.ask(question)?;
        let ms = said["ms"].as_array().ok_or_else(|| format!("answered {said}"))?;
        let ms = ms.iter().filter_map(Value::as_f64).collect();
        Ok(Answer { ms, flops: said["flops"].as_f64(), found: Found::read(&said) })
    }

    /// What the machine can do at most, as this arm measures it.
    ///
    /// # Errors
    /// As [`Arm::run`].
    pub fn peak(&mut self) -> Result<Value, String> {
        self.ask(&json!({ "peak": true }))
    }

    fn ask(&mut self, question: &Value) -> Result<Value, String> {
        let stdin = self.stdin.as_mut().expect("it is open until the arm is dropped");
        let written = writeln!(stdin, "{question}").and_then(|()| stdin.flush());
        // A program that has ended says why when it is read.
        let said = self.read();
        written.map_err(|e| said.clone().err().unwrap_or_else(|| e.to_string()))?;
        said
    }

    fn read(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        let read = self.stdout.read_line(&mut line).map_err(|e| e.to_string())?;
        if read == 0 {
            let ended = self.child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
            // Its last words may still be on their way; a program that it started may keep the pipe open for good.
            for _ in 0..20 {
                if self.listener.is_finished() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            let last = said.back().map_or_else(String::new, |line| format!(": {}", line.trim()));
            return Err(format!("it ended ({ended}){last}"));
        }
        let said: Value = serde_json::from_str(&line).map_err(|e| format!("said `{}`: {e}", line.trim()))?;
        match said["error"].as_str() {
            Some(why) => Err(why.to_string()),
            None => Ok(said),
        }
    }
}

impl Drop for Arm {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It ends with its standard input; what does not is stopped.
        for _ in 0..50 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<Arm, String> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Arm::start(command)
    }

    #[test]
    fn an_arm_is_asked_and_answers() {
        let mut arm =
            shell(r#"echo '{"ready": "a shell"}'; while read q; do echo '{"ms": [1.5, 2], "flops": 7}'; done"#)
                .unwrap();
        assert_eq!(arm.ready, "a shell");
        let answer = Answer { ms: vec![1.5, 2.0], flops: Some(7.0), found: None };
        assert_eq!(arm.run("text:1x16", 1, 2).unwrap(), answer);
    }

    #[test]
    fn vectors_are_compared_an_input_each_and_the_worst_counts() {
        let found = |said: Value| Found::read(&json!({ "vectors": said })).unwrap();
        let ours = found(json!([[1.0, 0.0], [0.6, 0.8]]));
        assert_eq!(ours.cosine(&found(json!([[2.0, 0.0], [0.6, 0.8]]))), Some(1.0));
        assert!(
            ours.cosine(&found(json!([[1.0, 0.0], [0.8, 0.6]]))).is_some_and(|cosine| (cosine - 0.96).abs() < 1e-9)
        );
        assert_eq!(ours.cosine(&found(json!([[1.0, 0.0], [0.0, 0.0]]))), Some(-1.0));
        for other in [json!([[1.0, 0.0]]), json!([[1.0], [0.6]]), json!([])] {
            assert_eq!(ours.cosine(&found(other.clone())), None, "{other}");
        }
        assert_eq!(Found::read(&json!({ "vectors": [["x"]] })), None);
        let said = json!({ "vectors": [[1.0]], "texts": ["a b"] });
        assert_eq!(Found::read(&said).unwrap().texts, ["a b"]);
    }

    #[test]
    fn an_arm_that_cannot_is_a_sentence() {
        assert!(shell("echo missing module >&2; exit 3").err().unwrap().contains("missing module"));
        assert_eq!(shell(r#"echo '{"error": "no such model"}'"#).err().unwrap(), "no such model");
        assert!(shell("echo hello").err().unwrap().contains("hello"));
        let mut arm = shell(r#"echo '{"ready": "x"}'; read q; echo '{"error": "too large"}'; read q; exit 9"#).unwrap();
        assert_eq!(arm.run("text:1x16", 0, 1).unwrap_err(), "too large");
        assert!(arm.run("text:1x16", 0, 1).unwrap_err().contains("9"));
        assert!(Arm::start(Command::new("no-such-program-of-ours")).err().unwrap().contains("no-such-program-of-ours"));
    }
}
