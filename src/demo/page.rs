//! What a person sees of the stand-in: the consent page and the page that says why there is none.
//! Plain forms and text, no script and nothing loaded from elsewhere. It decides nothing.

/// The look of every page, in the colours the person's system asks for.
const STYLE: &str = "
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }
body { margin: 0; }
main { max-width: 34rem; margin: 0 auto; padding: 1.5rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; line-height: 1.3; }
fieldset { margin: 0 0 1rem; border: 1px solid #767676; border-radius: .5rem; }
label { display: block; padding: .4rem 0; }
button { font: inherit; padding: .5rem 1.25rem; margin: 0 .5rem .5rem 0; }
code { font-size: .9em; }
";

/// What the consent page says.
pub(super) struct ConsentPage<'a> {
    /// Who asks: the OAuth client's id.
    pub(super) client_id: &'a str,
    /// Where the answer goes.
    pub(super) redirect_uri: &'a str,
    /// The accounts that are signed in.
    pub(super) accounts: &'a [String],
    /// Which of them is chosen beforehand.
    pub(super) chosen: usize,
    /// Scopes and what they allow, in words.
    pub(super) scopes: Vec<(&'a str, &'a str)>,
}

impl ConsentPage<'_> {
    /// The page. Its form goes back to the address it came from, query included, with `account`,
    /// the ticked `scope`s and `decision`.
    pub(super) fn html(&self) -> String {
        let mut accounts = String::new();
        for (index, account) in self.accounts.iter().enumerate() {
            let account = escape(account);
            let checked = if index == self.chosen { " checked" } else { "" };
            accounts.push_str(&format!(
                "<label><input type=\"radio\" name=\"account\" value=\"{account}\"{checked}> {account}</label>\n"
            ));
        }
        let mut scopes = String::new();
        for (scope, meaning) in &self.scopes {
            let (scope, meaning) = (escape(scope), escape(meaning));
            scopes.push_str(&format!(
                "<label><input type=\"checkbox\" name=\"scope\" value=\"{scope}\" checked> {meaning}</label>\n"
            ));
        }
        let client = escape(self.client_id);
        let redirect_uri = escape(self.redirect_uri);
        let main = format!(
            "<h1>{client} wants access to your account</h1>
<form method=\"post\">
<fieldset>
<legend>Your account</legend>
{accounts}</fieldset>
<fieldset>
<legend>What it may do</legend>
{scopes}</fieldset>
<p>Your answer goes to <code>{redirect_uri}</code></p>
<button name=\"decision\" value=\"continue\">Continue</button>
<button name=\"decision\" value=\"cancel\">Cancel</button>
</form>"
        );
        whole("Access to your account", &main)
    }
}

/// The page in place of the consent page: the error and its description.
pub(super) fn refusal(code: u16, error: &str, description: &str) -> String {
    let (error, description) = (escape(error), escape(description));
    let main = format!(
        "<h1>Access blocked: Authorization Error</h1>
<p>{description}</p>
<p>Error {code}: {error}</p>"
    );
    whole("Authorization Error", &main)
}

fn whole(title: &str, main: &str) -> String {
    format!(
        "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>{title} - stand-in for Google</title>
<link rel=\"icon\" href=\"data:,\">
<style>{STYLE}</style>
</head>
<body>
<main>
<p>This is a stand-in for Google. It knows no real account.</p>
{main}
</main>
</body>
</html>
"
    )
}

/// Text with what HTML takes for markup escaped, in content and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
