"""All Streamlit code of the app but the page scripts: boot guard, typed state, loaders, chart builders, review card."""
