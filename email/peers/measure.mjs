// Mails a second of npm's mailparser with sanitize-html, on one thread, by CPU time. The arguments are the folder
// that both are installed in, and folders of mails, one file each. The work is that of measure.py.
import { readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, join, resolve } from 'node:path';

const SECONDS = 3;
const [installed, ...folders] = process.argv.slice(2);
const require = createRequire(resolve(installed, 'package.json'));
const { simpleParser } = require('mailparser');
const sanitizeHtml = require('sanitize-html');
const allowed = {
    allowedTags: [...sanitizeHtml.defaults.allowedTags, 'img'],
    allowedAttributes: { a: ['href', 'title'], img: ['src', 'alt', 'width', 'height'], td: ['colspan'], th: ['colspan'] },
    allowedSchemes: ['http', 'https', 'mailto', 'cid'],
};

async function read(raw, sanitise) {
    const mail = await simpleParser(raw, { skipImageLinks: true, skipTextToHtml: true });
    if (sanitise && mail.html) sanitizeHtml(mail.html, allowed);
}

// What it throws on broken mail is part of its work.
async function attempt(raw, sanitise) {
    try {
        await read(raw, sanitise);
        return 0;
    } catch {
        return 1;
    }
}

function cpuSeconds() {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
}

for (const folder of folders) {
    const mails = readdirSync(folder).sort().map((name) => readFileSync(join(folder, name)));
    const size = mails.reduce((sum, raw) => sum + raw.length, 0);
    for (const [work, sanitise] of [['headers and text', false], ['with sanitised HTML', true]]) {
        let failed = 0;
        for (const raw of mails) failed += await attempt(raw, sanitise);
        let rounds = 0;
        const start = cpuSeconds();
        while (rounds === 0 || cpuSeconds() - start < SECONDS) {
            for (const raw of mails) await attempt(raw, sanitise);
            rounds += 1;
        }
        const taken = cpuSeconds() - start;
        const speed = (rounds * mails.length) / taken;
        const rate = (rounds * size) / taken / 1e6;
        console.log(
            `| ${basename(folder)} | Node ${process.versions.node}: mailparser, sanitize-html | ${work} ` +
                `| ${speed.toFixed(0)} | ${rate.toFixed(1)} | ${failed} |`,
        );
    }
}
