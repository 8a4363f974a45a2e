// One more question before something that can't be taken back.

const $ = (id) => document.getElementById(id);

/** Asks in a dialog; resolves to whether the answer was yes. Escape is no. */
export function isSure({ title, text, about = '', yes, no }) {
  const dialog = $('sure');
  $('sure-title').textContent = title;
  $('sure-text').textContent = text;
  $('sure-which').textContent = about;
  $('sure-yes').textContent = yes;
  $('sure-no').textContent = no;
  dialog.returnValue = '';
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
    dialog.showModal();
  });
}

/** As if it was said no. */
export function unask() {
  $('sure').close();
}
