//! A command: each word is something to do. What it returns is its exit code.
use std::io::{Read, Write};
use std::process::ExitCode;
use std::{env, fs, io, thread, time};

fn main() -> io::Result<ExitCode> {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["echo", ref rest @ ..] => println!("{}", rest.join(" ")),
        ["env", name] => println!("{}", env::var(name).unwrap_or_default()),
        ["upper"] => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            io::stdout().write_all(text.to_uppercase().as_bytes())?;
        }
        ["copy", from, to] => println!("{}", fs::copy(from, to)?),
        ["list", path] => {
            let mut names = Vec::new();
            for entry in fs::read_dir(path)? {
                names.push(entry?.file_name().into_string().expect("UTF-8"));
            }
            names.sort();
            println!("{}", names.join(" "));
        }
        ["sleep", ms] => {
            let began = time::Instant::now();
            thread::sleep(time::Duration::from_millis(ms.parse().expect("a number")));
            println!("{}", began.elapsed().as_millis() >= ms.parse().expect("a number"));
        }
        ["panic"] => panic!("on purpose"),
        ["fail"] => return Ok(ExitCode::FAILURE),
        _ => {
            eprintln!("what is {words:?}?");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}
