// Gives each text that can be seen with the contrast of its colour to the colour behind it
// (WCAG 2.2, "contrast ratio"). Colours come as rgb() or rgba(); what is not opaque is laid over
// what is below it.
const parse = text => {
  const [red, green, blue, alpha = 1] = text.match(/[\d.]+/g).map(Number);
  return { channels: [red, green, blue], alpha };
};
const over = (top, below) =>
  top.channels.map((channel, i) => channel * top.alpha + below[i] * (1 - top.alpha));
const behind = element => {
  if (!element) return matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
  const style = getComputedStyle(element);
  if (style.backgroundImage !== "none") throw new Error("a picture is behind a text");
  return over(parse(style.backgroundColor), behind(element.parentElement));
};
const luminance = channels => {
  const [red, green, blue] = channels.map(channel => {
    const part = channel / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const measured = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const text = texts.currentNode.data.trim();
  const element = texts.currentNode.parentElement;
  if (!text || !element.checkVisibility({ visibilityProperty: true })) continue;
  const back = behind(element);
  const front = over(parse(getComputedStyle(element).color), back);
  const [light, dark] = [luminance(front), luminance(back)].sort((a, b) => b - a);
  measured.push({ text, contrast: (light + 0.05) / (dark + 0.05) });
}
return measured;
