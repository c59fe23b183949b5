//! Reads BuildKit's plain progress: how many steps there are and were cached, and where it failed.

use std::collections::BTreeSet;

use crate::process::Tail;

/// What has been read so far.
#[derive(Default)]
pub struct Progress {
    open: Vec<u8>,
    /// Step numbers (`#7`) of Dockerfile instructions.
    steps: BTreeSet<String>,
    cached: BTreeSet<String>,
    /// `Dockerfile:12`.
    at: Option<String>,
    error: Option<String>,
    /// Of the step that failed; older clients end without an `ERROR:` of their own.
    step_error: Option<String>,
    tail: Tail,
}

impl Progress {
    /// Takes the next piece of output. Answers whether a line was finished.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        let mut finished = false;
        for byte in bytes {
            if *byte == b'\n' {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.open)).into_owned();
                self.line(line.trim_end());
                finished = true;
            } else if self.open.len() < 4096 {
                self.open.push(*byte);
            }
        }
        finished
    }

    /// Steps that came from the cache, and all steps.
    #[must_use]
    pub fn counts(&self) -> (u32, u32) {
        let cached = self.cached.intersection(&self.steps).count();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (count(cached), count(self.steps.len()))
    }

    /// The failure in words, and the exit code of the instruction that failed.
    #[must_use]
    pub fn failure(&self) -> (String, Option<i32>) {
        let error = self.error.as_deref().or(self.step_error.as_deref());
        let error = error.unwrap_or("docker build failed");
        let code = error.rsplit_once("exit code: ").and_then(|(_, code)| code.trim().parse().ok());
        match &self.at {
            Some(at) => (format!("{at}: {error}"), code),
            None => (error.to_owned(), code),
        }
    }

    /// The last lines that say more than a count of bytes.
    #[must_use]
    pub fn tail(mut self) -> String {
        self.push(b"\n");
        self.tail.text()
    }

    fn line(&mut self, line: &str) {
        if !counts_bytes(line) {
            self.tail.push(line.as_bytes());
            self.tail.push(b"\n");
        }
        if let Some(rest) = line.strip_prefix('#')
            && let Some((number, text)) = rest.split_once(' ')
        {
            // `[2/5] RUN …` or `[stage 2/5] RUN …`; `[internal] …` is not an instruction.
            let counted = text
                .strip_prefix('[')
                .and_then(|text| text.split_once(']'))
                .is_some_and(|(head, _)| head.contains('/'));
            if counted {
                self.steps.insert(number.to_owned());
            } else if text == "CACHED" {
                self.cached.insert(number.to_owned());
            } else if let Some(error) = text.strip_prefix("ERROR: ") {
                self.step_error = Some(error.to_owned());
            }
            return;
        }
        let error = line
            .strip_prefix("ERROR: ")
            .or_else(|| line.strip_prefix("error: "))
            .or_else(|| line.strip_prefix("failed to solve: ").map(|_| line));
        if let Some(error) = error {
            let error = error.strip_prefix("failed to build: ").unwrap_or(error);
            let error = error.strip_prefix("failed to solve: ").unwrap_or(error);
            self.error = Some(error.to_owned());
        } else if !line.contains(' ')
            && let Some((file, number)) = line.rsplit_once(':')
            && !file.is_empty()
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
        {
            self.at = Some(format!("{file}, line {number}"));
        }
    }
}

/// Whether a line only counts bytes (`#4 sha256:… 6.23MB / 29.80MB 0.8s`): it says nothing about a failure, and hundreds
/// of them push out of a tail what does.
fn counts_bytes(line: &str) -> bool {
    let step = line.strip_prefix('#').and_then(|rest| rest.split_once(' '));
    step.is_some_and(|(number, text)| {
        number.bytes().all(|byte| byte.is_ascii_digit())
            && ["sha256:", "extracting sha256:", "transferring "].iter().any(|word| text.starts_with(word))
    })
}

#[cfg(test)]
mod tests {
    use super::Progress;
    use crate::process::TAIL_LINES;

    #[test]
    fn lines_that_only_count_bytes_are_left_out_of_a_tail_and_push_nothing_out_of_it() {
        let mut progress = Progress::default();
        progress.push(b"#4 DONE 19.5s\n#5 [2/2] RUN sha256:\n#5 0.3 sha256:a5 is wrong\n");
        for _ in 0..TAIL_LINES {
            let lines =
                "#4 sha256:a5 6.23MB / 29.80MB 0.8s\n#4 extracting sha256:a5 5.0s\n#2 transferring context: 2B\n";
            progress.push(lines.as_bytes());
        }
        progress.push(b"no end of line");
        let told = "#4 DONE 19.5s\n#5 [2/2] RUN sha256:\n#5 0.3 sha256:a5 is wrong\nno end of line";
        assert_eq!(progress.tail(), told);
    }

    #[test]
    fn a_failed_build_says_where() {
        let mut progress = Progress::default();
        progress.push(
            b"#1 [internal] load build definition from Dockerfile\n#1 DONE 0.0s\n\
            #5 [1/3] FROM docker.io/library/alpine\n#5 CACHED\n#6 [2/3] COPY . .\n#6 DONE 0.1s\n\
            #7 [3/3] RUN npm ci\n#7 0.5 npm ERR!\n#7 ERROR: process \"/bin/sh -c npm ci\" did not complete successfully: exit code: 7\n\
            ------\n > [3/3] RUN npm ci:\n------\nDockerfile:4\n--------------------\n   4 | >>> RUN npm ci\n--------------------\n\
            ERROR: failed to solve: process \"/bin/sh -c npm ci\" did not complete successfully: exit code: 7\n",
        );
        assert_eq!(progress.counts(), (1, 3));
        assert_eq!(
            progress.failure(),
            (
                "Dockerfile, line 4: process \"/bin/sh -c npm ci\" did not complete successfully: exit code: 7"
                    .to_owned(),
                Some(7)
            )
        );
    }
}
