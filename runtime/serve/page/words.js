// What the page says, by its mode and state: the status, the title, the text, and what the large button does.

const WAITING = {
  loading: ["Loading", "One moment", "The portrait is being fetched."],
  reconnecting: ["Reconnecting", "The connection was lost", "", "Try now"],
  error: ["Problem", "This did not work", "", "Start again"],
};

export const WORDS = {
  // The visitor's own voice moves the portrait.
  mirror: {
    ...WAITING,
    ready: ["Ready", "Speak, and the portrait speaks with you", "Your voice is heard by this kiosk only and is not kept.", "Touch to start"],
    connecting: ["Connecting", "Connecting", "Allow the microphone if the browser asks."],
    live: ["Listening", "Just talk", "The portrait answers a moment later, in your own voice."],
    full: ["Busy", "Somebody else is talking", "", "Try now"],
    ended: ["Ended", "Thank you for talking", "", "Start again"],
  },
  // A program speaks.
  watch: {
    ...WAITING,
    ready: ["Ready", "The portrait has something to tell you", "Speak whenever you like: it stops and lets you talk.", "Touch to listen"],
    connecting: ["Connecting", "Connecting", "With the microphone you can interrupt by speaking."],
    live: ["Live", "Listen, or just speak", "The portrait stops when you do."],
    full: ["Busy", "Every place is taken", "", "Try now"],
    ended: ["Ended", "Thank you for listening", "", "Start again"],
  },
};

// In place of the live status while the machine cannot keep up.
export const STATUS = { reduced: "Machine busy", held: "Machine too busy" };
