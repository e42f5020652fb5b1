// What npm's mailparser makes of mails: for each path on standard input a line of JSON on standard output. The one
// argument is the folder that mailparser is installed in. It must read with the defaults of its documentation, but
// for what would only cost time.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';

const { simpleParser } = createRequire(resolve(process.argv[2], 'package.json'))('mailparser');
const options = { skipImageLinks: true, skipTextToHtml: true };

// A date that cannot be read becomes the present.
const started = Date.now();
function date(value) {
    if (!value || Number.isNaN(value.getTime())) return null;
    if (value.getTime() >= started && value.getTime() <= Date.now()) return null;
    return value.toISOString().slice(0, 19);
}

async function read(path) {
    const mail = await simpleParser(readFileSync(path), options);
    const people = (mail.from?.value ?? []).flatMap((entry) => entry.group ?? [entry]);
    return {
        subject: mail.subject ?? null,
        from: people.map((entry) => [entry.name || null, entry.address || null]),
        date: date(mail.date),
        text: mail.text ?? '',
        attachments: mail.attachments
            .filter((attachment) => attachment.filename)
            .map((attachment) => [attachment.filename, attachment.size ?? null]),
    };
}

for (const path of readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
    let record;
    try {
        record = await read(path);
    } catch {
        record = { refused: true };
    }
    process.stdout.write(`${JSON.stringify(record)}\n`);
}
