//! The team's cloud accounts at the real API, behind which no orchestrator answers: what needs a provider gets no further.

use crate::stand::Stand;

const EDGE: [&str; 2] = ["--ingress-from", "198.51.100.7/32"];

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_listed_renamed_and_removed() {
    let stand = Stand::start().await;
    let (code, out, err) = stand.admin(&["cloud", "accounts", "ls"], &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("metal") && out.contains("qemu") && out.contains("anywhere"), "{out}");

    let (code, out, err) = stand.admin(&["cloud", "accounts", "edit", "metal", "--name", "attic"], &[]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "attic: changed\n", ""));
    let (code, _, err) = stand.admin(&["cloud", "accounts", "edit", "metal", "--name", "cellar"], &[]);
    assert!(code == 1 && err.contains("there are attic"), "{code} {err}");
    let (code, _, err) = stand.admin(&["cloud", "accounts", "edit", "attic", "--region", "eu-west-1"], &[]);
    assert!(code == 1 && err.contains("`settings`"), "{code} {err}");

    let (code, _, err) = stand.admin(&["cloud", "accounts", "rm", "attic"], &[]);
    assert!(code == 1 && err.contains("1 machines") && err.contains("own/shop"), "{code} {err}");
    stand.db.execute("UPDATE machines SET gone_at = now(); UPDATE projects SET deleted_at = now()").await;
    let (code, out, _) = stand.admin(&["cloud", "accounts", "rm", "attic"], &[]);
    assert_eq!((code, out.as_str()), (0, "attic: removed\n"));
    let (code, _, err) = stand.run(&["cloud", "accounts", "rm", "attic"]);
    assert!(code == 1 && err.contains("there is none"), "{code} {err}");
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_from_the_environment_and_are_never_printed() {
    let stand = Stand::start().await;
    let add = |kind| [&["cloud", "accounts", "add", "eu", kind][..], &EDGE].concat();
    let (code, _, err) = stand.admin(&add("hetzner"), &[]);
    assert!(code == 2 && err.contains("set HCLOUD_TOKEN"), "{code} {err}");
    let (code, _, err) = stand.admin(&add("aws"), &[]);
    assert!(code == 2 && err.contains("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"), "{code} {err}");
    // They got as far as the orchestrator.
    let (code, out, err) = stand.admin(&add("hetzner"), &[("HCLOUD_TOKEN", "s3cret")]);
    assert!(code == 4 && err.contains("the orchestrator does not answer"), "{code} {err}");
    assert!(!format!("{out}{err}").contains("s3cret"));
    // Half of them is refused by name.
    let region = [add("aws"), vec!["--region", "eu-central-1"]].concat();
    let (code, _, err) = stand.admin(&region, &[("AWS_ACCESS_KEY_ID", "s3cret")]);
    assert!(code == 1 && err.contains("secret_access_key") && !err.contains("s3cret"), "{code} {err}");
    // So are those that run out, which would be refused as wrong without what goes with them.
    let keys = [("AWS_ACCESS_KEY_ID", "s3cret"), ("AWS_SECRET_ACCESS_KEY", "s3cret"), ("AWS_SESSION_TOKEN", "s3cret")];
    let (code, _, err) = stand.admin(&region, &keys);
    assert!(code == 1 && err.contains("runs out in hours") && !err.contains("s3cret"), "{code} {err}");
    let (code, _, err) = stand.admin(&[add("hetzner"), vec!["--hcloud-token", "s3cret"]].concat(), &[]);
    assert!(code == 2 && err.contains("unexpected argument"), "there is no such argument: {code} {err}");
    let (code, _, err) = stand.admin(&[add("hetzner"), vec!["--credentials-stdin"]].concat(), &[]);
    assert!(code == 2 && err.contains("standard input"), "{code} {err}");
    stand.stop().await;
}
