//! Word lists of the simulated source: what creators of twenty niches say about themselves, in seven languages.

/// What creators write in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// German.
    German,
    /// French.
    French,
    /// Spanish.
    Spanish,
    /// Portuguese.
    Portuguese,
    /// Italian.
    Italian,
    /// Dutch.
    Dutch,
}

impl Language {
    /// Every language, in the order of the word lists.
    pub const ALL: [Self; 7] =
        [Self::English, Self::German, Self::French, Self::Spanish, Self::Portuguese, Self::Italian, Self::Dutch];
}

/// One niche: words for handles, and topics per language in the order of [`Language::ALL`].
pub struct Niche {
    /// Its name.
    pub name: &'static str,
    /// Words that its creators put into their handles.
    pub handle_words: [&'static str; 4],
    /// Two topics in each language.
    pub topics: [[&'static str; 2]; 7],
}

/// The niches.
#[rustfmt::skip]
pub const NICHES: [Niche; 20] = [
    Niche { name: "fitness", handle_words: ["fit", "lifts", "gym", "strong"], topics: [
        ["home workouts and strength training", "fitness coach, gym routines"], ["Krafttraining und Workouts für zuhause", "Fitness Coach und Trainingspläne"],
        ["musculation et entraînement à la maison", "coach fitness, routines de sport"], ["entrenamiento de fuerza y rutinas en casa", "entrenadora fitness y gimnasio"],
        ["treino em casa e musculação", "treinadora fitness e academia"], ["allenamento a casa e palestra", "personal trainer, fitness ogni giorno"], ["krachttraining en workouts thuis", "fitness coach en trainingsschema's"]] },
    Niche { name: "beauty", handle_words: ["beauty", "glow", "makeup", "skin"], topics: [
        ["skincare routines and makeup tutorials", "clean beauty reviews"], ["Hautpflege und Make-up Tutorials", "Beauty und Naturkosmetik im Test"],
        ["soins de la peau et tutos maquillage", "beauté naturelle et avis cosmétiques"], ["cuidado de la piel y tutoriales de maquillaje", "belleza natural y reseñas"],
        ["cuidados com a pele e tutoriais de maquiagem", "beleza natural e resenhas"], ["skincare e tutorial di trucco", "bellezza naturale e recensioni"], ["huidverzorging en make-up tutorials", "natuurlijke beauty getest"]] },
    Niche { name: "fashion", handle_words: ["style", "outfits", "closet", "looks"], topics: [
        ["outfit ideas and capsule wardrobes", "slow fashion and thrift finds"], ["Outfits und Mode für jeden Tag", "Slow Fashion und Secondhand"],
        ["idées de tenues et mode au quotidien", "mode éthique et seconde main"], ["ideas de outfits y moda diaria", "moda sostenible y segunda mano"],
        ["looks do dia e moda", "moda sustentável e brechó"], ["outfit e moda di ogni giorno", "moda sostenibile e vintage"], ["outfits en mode voor elke dag", "duurzame mode en tweedehands"]] },
    Niche { name: "travel", handle_words: ["travels", "wander", "roams", "nomad"], topics: [
        ["solo travel and hidden places", "budget travel guides and hotels"], ["Reisen mit kleinem Budget und Geheimtipps", "Weltreise und Reiseführer"],
        ["voyages en solo et lieux secrets", "guides de voyage et petits hôtels"], ["viajes en solitario y lugares secretos", "guías de viaje y hoteles"],
        ["viagens e lugares escondidos", "roteiros de viagem e hotéis"], ["viaggi zaino in spalla e luoghi nascosti", "guide di viaggio e hotel"], ["reizen met een klein budget", "reisgidsen en verborgen plekken"]] },
    Niche { name: "food", handle_words: ["eats", "kitchen", "cooks", "bakes"], topics: [
        ["easy recipes and baking", "plant based cooking for busy days"], ["einfache Rezepte und Backen", "vegane Küche für jeden Tag"],
        ["recettes faciles et pâtisserie", "cuisine végétale du quotidien"], ["recetas fáciles y repostería", "cocina vegana para cada día"],
        ["receitas fáceis e confeitaria", "cozinha vegana do dia a dia"], ["ricette facili e dolci fatti in casa", "cucina vegana per ogni giorno"], ["makkelijke recepten en bakken", "plantaardig koken"]] },
    Niche { name: "gaming", handle_words: ["plays", "gg", "games", "pixel"], topics: [
        ["indie games and speedruns", "streaming cozy games every week"], ["Indie Games und Speedruns", "Gaming Streams jede Woche"],
        ["jeux indés et speedruns", "streams de jeux vidéo chaque semaine"], ["videojuegos indie y speedruns", "streams de juegos cada semana"],
        ["jogos indie e speedruns", "lives de games toda semana"], ["videogiochi indie e speedrun", "streaming di giochi ogni settimana"], ["indie games en speedruns", "gaming streams elke week"]] },
    Niche { name: "tech", handle_words: ["tech", "codes", "gadgets", "dev"], topics: [
        ["gadget reviews and app tips", "software, AI tools and coding"], ["Technik Tests und App Tipps", "Programmieren und KI Werkzeuge"],
        ["tests de gadgets et applis", "logiciels, IA et programmation"], ["análisis de gadgets y aplicaciones", "programación y herramientas de IA"],
        ["análises de gadgets e aplicativos", "programação e ferramentas de IA"], ["recensioni di gadget e app", "programmazione e intelligenza artificiale"], ["gadget reviews en app tips", "programmeren en AI tools"]] },
    Niche { name: "finance", handle_words: ["money", "invests", "budget", "wealth"], topics: [
        ["personal finance and index funds", "budgeting and saving tips"], ["Finanzen und ETF einfach erklärt", "Sparen und Haushaltsbuch"],
        ["finances personnelles et ETF", "budget et astuces d'épargne"], ["finanzas personales e inversión", "ahorro y presupuesto"],
        ["finanças pessoais e investimentos", "orçamento e economia"], ["finanza personale e investimenti", "risparmio e budget"], ["persoonlijke financiën en beleggen", "sparen en budget tips"]] },
    Niche { name: "parenting", handle_words: ["mom", "family", "dadlife", "littles"], topics: [
        ["family life and toddler activities", "gentle parenting, mom of two"], ["Familienleben und Spielideen für Kinder", "Mama von zwei Kindern"],
        ["vie de famille et activités pour enfants", "maman de deux enfants"], ["vida en familia y juegos para niños", "mamá de dos"],
        ["vida em família e brincadeiras", "mãe de dois, maternidade leve"], ["vita in famiglia e giochi per bambini", "mamma di due bambini"], ["gezinsleven en activiteiten voor kinderen", "moeder van twee"]] },
    Niche { name: "pets", handle_words: ["paws", "dogs", "cats", "pup"], topics: [
        ["dog training and rescue stories", "life with two cats"], ["Hundetraining und Tierschutz", "Leben mit zwei Katzen"],
        ["éducation canine et sauvetage", "la vie avec deux chats"], ["adiestramiento de perros y rescate", "vida con dos gatos"],
        ["adestramento de cães e resgate", "a vida com dois gatos"], ["addestramento cani e adozioni", "vita con due gatti"], ["hondentraining en adoptie", "leven met twee katten"]] },
    Niche { name: "home", handle_words: ["home", "diy", "decor", "builds"], topics: [
        ["home decor and diy renovation", "small space interior design"], ["Wohnideen und Renovieren", "Heimwerken und Einrichtung"],
        ["décoration maison et bricolage", "aménagement de petits espaces"], ["decoración del hogar y bricolaje", "reformas y diseño interior"],
        ["decoração da casa e reforma", "design de interiores em espaços pequenos"], ["arredamento casa e fai da te", "ristrutturazione e interni"], ["interieur en klussen", "wonen in kleine ruimtes"]] },
    Niche { name: "photography", handle_words: ["photo", "lens", "shoots", "frames"], topics: [
        ["street photography and film cameras", "portrait photographer sharing presets"], ["Straßenfotografie und analoge Kameras", "Portraitfotografin, Presets"],
        ["photographie de rue et argentique", "photographe de portraits"], ["fotografía callejera y analógica", "fotógrafa de retratos"],
        ["fotografia de rua e analógica", "fotógrafa de retratos"], ["fotografia di strada e pellicola", "fotografa di ritratti"], ["straatfotografie en analoge camera's", "portretfotograaf"]] },
    Niche { name: "music", handle_words: ["music", "sings", "beats", "guitar"], topics: [
        ["guitar covers and songwriting", "music producer, beats and mixing tips"], ["Gitarre und eigene Songs", "Musikproduktion und Beats"],
        ["guitare, reprises et compositions", "production musicale et beats"], ["guitarra, covers y canciones", "producción musical y beats"],
        ["violão, covers e composições", "produção musical e beats"], ["chitarra, cover e canzoni", "produzione musicale e beat"], ["gitaar covers en eigen liedjes", "muziekproductie en beats"]] },
    Niche { name: "art", handle_words: ["art", "draws", "paints", "ink"], topics: [
        ["watercolor and digital illustration", "ceramics studio, handmade pottery"], ["Aquarell und digitale Illustration", "Keramik und Handgemachtes"],
        ["aquarelle et illustration numérique", "céramique faite main"], ["acuarela e ilustración digital", "cerámica hecha a mano"],
        ["aquarela e ilustração digital", "cerâmica feita à mão"], ["acquerello e illustrazione digitale", "ceramica fatta a mano"], ["aquarel en digitale illustratie", "handgemaakt keramiek"]] },
    Niche { name: "education", handle_words: ["learns", "teach", "studies", "tutor"], topics: [
        ["study tips and language learning", "teacher sharing classroom ideas"], ["Lerntipps und Sprachen lernen", "Lehrerin mit Ideen für den Unterricht"],
        ["conseils pour étudier et langues", "professeure, idées pour la classe"], ["trucos de estudio e idiomas", "maestra con ideas para el aula"],
        ["dicas de estudo e idiomas", "professora com ideias para a sala de aula"], ["consigli di studio e lingue", "insegnante con idee per la classe"], ["studietips en talen leren", "juf met ideeën voor de klas"]] },
    Niche { name: "books", handle_words: ["reads", "books", "pages", "shelf"], topics: [
        ["book reviews and cozy reading", "fantasy novels and bookish lists"], ["Buchtipps und Rezensionen", "Fantasy Romane und Lesezeit"],
        ["critiques de livres et lectures", "romans fantasy et listes de lecture"], ["reseñas de libros y lecturas", "novelas de fantasía"],
        ["resenhas de livros e leituras", "romances de fantasia"], ["recensioni di libri e letture", "romanzi fantasy"], ["boekrecensies en leestips", "fantasy romans"]] },
    Niche { name: "cars", handle_words: ["drives", "garage", "motors", "torque"], topics: [
        ["classic car restoration and detailing", "electric cars and road tests"], ["Oldtimer und Autopflege", "Elektroautos im Test"],
        ["restauration de voitures anciennes", "essais de voitures électriques"], ["restauración de coches clásicos", "pruebas de coches eléctricos"],
        ["restauração de carros clássicos", "testes de carros elétricos"], ["restauro di auto d'epoca", "prove di auto elettriche"], ["klassieke auto's en restauratie", "elektrische auto's getest"]] },
    Niche { name: "sustainability", handle_words: ["green", "zerowaste", "eco", "garden"], topics: [
        ["zero waste living and urban gardening", "sustainable swaps that last"], ["Zero Waste und Garten auf dem Balkon", "nachhaltig leben im Alltag"],
        ["zéro déchet et jardin en ville", "vie durable au quotidien"], ["residuo cero y huerto urbano", "vida sostenible"],
        ["lixo zero e horta urbana", "vida sustentável"], ["zero sprechi e orto in città", "vita sostenibile"], ["zero waste en moestuin", "duurzaam leven"]] },
    Niche { name: "wellness", handle_words: ["yoga", "calm", "mindful", "breathe"], topics: [
        ["yoga flows and meditation", "mental health and slow mornings"], ["Yoga und Meditation", "Achtsamkeit und mentale Gesundheit"],
        ["yoga et méditation", "bien-être et santé mentale"], ["yoga y meditación", "bienestar y salud mental"],
        ["ioga e meditação", "bem-estar e saúde mental"], ["yoga e meditazione", "benessere e salute mentale"], ["yoga en meditatie", "mindfulness en mentale gezondheid"]] },
    Niche { name: "outdoors", handle_words: ["hikes", "trail", "camp", "summit"], topics: [
        ["hiking trails and camping gear", "trail running and climbing"], ["Wandern und Campingausrüstung", "Trailrunning und Klettern"],
        ["randonnée et matériel de camping", "trail et escalade"], ["senderismo y equipo de camping", "trail running y escalada"],
        ["trilhas e equipamento de camping", "corrida em trilha e escalada"], ["escursioni e attrezzatura da campeggio", "trail running e arrampicata"], ["wandelen en kampeerspullen", "trailrunning en klimmen"]] },
];

/// How bios in a language are put together: `{t}` stands for the topic.
#[rustfmt::skip]
pub const OPENINGS: [[&str; 4]; 7] = [
    ["{t} ✨", "I share {t}", "All about {t}.", "{t} | new videos every week"],
    ["{t} ✨", "Hier gibt es {t}", "Alles über {t}.", "{t} | jede Woche neue Videos"],
    ["{t} ✨", "Je partage {t}", "Tout sur {t}.", "{t} | nouvelles vidéos chaque semaine"],
    ["{t} ✨", "Comparto {t}", "Todo sobre {t}.", "{t} | vídeos nuevos cada semana"],
    ["{t} ✨", "Compartilho {t}", "Tudo sobre {t}.", "{t} | vídeos novos toda semana"],
    ["{t} ✨", "Condivido {t}", "Tutto su {t}.", "{t} | nuovi video ogni settimana"],
    ["{t} ✨", "Ik deel {t}", "Alles over {t}.", "{t} | elke week nieuwe video's"],
];

/// How creators invite offers; without an address.
#[rustfmt::skip]
pub const INVITATIONS: [[&str; 3]; 7] = [
    ["Open for collabs 💌", "Business inquiries by email", "DM for partnerships"],
    ["Offen für Kooperationen 💌", "Anfragen per E-Mail", "Kooperation? Schreib mir"],
    ["Ouverte aux collaborations 💌", "Contact pro par e-mail", "Partenariats bienvenus"],
    ["Abierta a colaboraciones 💌", "Contacto profesional por correo", "Colaboraciones por DM"],
    ["Aberta a parcerias 💌", "Contato comercial por e-mail", "Parcerias por DM"],
    ["Collaborazioni 💌", "Contatti di lavoro via e-mail", "Aperta a partnership"],
    ["Open voor samenwerkingen 💌", "Zakelijk via e-mail", "Samenwerken? Stuur een bericht"],
];

/// Where an address in a bio is announced.
pub const MAIL_LABELS: [&str; 7] = ["Email:", "Mail:", "Contact :", "Correo:", "Contato:", "Scrivimi:", "Mail:"];

/// Domains that belong to nobody (RFC 2606 §3), with names before them as studios and agencies have.
pub const DOMAINS: [&str; 12] = [
    "studio.example.com",
    "mail.example.com",
    "creators.example.net",
    "hello.example.org",
    "agency.example.com",
    "inbox.example.net",
    "team.example.org",
    "post.example.com",
    "management.example.net",
    "media.example.org",
    "work.example.com",
    "contact.example.net",
];

/// A country with its weight, language, and places as creators write them.
pub struct Home {
    /// The code.
    pub code: &'static str,
    /// How many in a thousand live there.
    pub weight: u16,
    /// What they write in.
    pub language: Language,
    /// Places; some say the country, some only the city.
    pub places: [&'static str; 4],
}

/// Where creators live. About half are where the law lets a first mail through without any evidence.
#[rustfmt::skip]
pub const HOMES: [Home; 21] = [
    Home { code: "US", weight: 300, language: Language::English, places: ["Austin, TX", "Los Angeles, CA", "Chicago", "Brooklyn, USA"] },
    Home { code: "FR", weight: 80, language: Language::French, places: ["Paris", "Lyon, France", "Bordeaux", "Marseille 🇫🇷"] },
    Home { code: "BR", weight: 80, language: Language::Portuguese, places: ["São Paulo", "Rio de Janeiro, Brasil", "Curitiba 🇧🇷", "Recife"] },
    Home { code: "MX", weight: 60, language: Language::Spanish, places: ["Ciudad de México", "Guadalajara, México", "Monterrey 🇲🇽", "CDMX"] },
    Home { code: "AU", weight: 45, language: Language::English, places: ["Sydney", "Melbourne, Australia", "Brisbane 🇦🇺", "Gold Coast"] },
    Home { code: "IN", weight: 45, language: Language::English, places: ["Mumbai", "Bengaluru, India", "New Delhi", "Pune 🇮🇳"] },
    Home { code: "PH", weight: 25, language: Language::English, places: ["Manila", "Cebu City, Philippines", "Makati", "Quezon City 🇵🇭"] },
    Home { code: "IE", weight: 20, language: Language::English, places: ["Dublin", "Galway, Ireland", "Cork", "Dublin 🇮🇪"] },
    Home { code: "NZ", weight: 15, language: Language::English, places: ["Auckland", "Wellington, New Zealand", "Christchurch", "Auckland 🇳🇿"] },
    Home { code: "SE", weight: 15, language: Language::English, places: ["Stockholm", "Göteborg, Sverige", "Malmö", "Stockholm 🇸🇪"] },
    Home { code: "FI", weight: 10, language: Language::English, places: ["Helsinki", "Tampere, Finland", "Turku", "Espoo 🇫🇮"] },
    Home { code: "EE", weight: 5, language: Language::English, places: ["Tallinn", "Tartu, Estonia", "Tallinn 🇪🇪", "Eesti"] },
    Home { code: "GB", weight: 75, language: Language::English, places: ["London", "Manchester, UK", "Bristol", "Glasgow, Scotland"] },
    Home { code: "DE", weight: 70, language: Language::German, places: ["Berlin", "München, Deutschland", "Hamburg 🇩🇪", "Köln"] },
    Home { code: "ES", weight: 40, language: Language::Spanish, places: ["Madrid", "Barcelona, España", "Sevilla", "Málaga 🇪🇸"] },
    Home { code: "IT", weight: 35, language: Language::Italian, places: ["Milano", "Roma, Italia", "Torino", "Napoli 🇮🇹"] },
    Home { code: "CA", weight: 30, language: Language::English, places: ["Toronto", "Vancouver, Canada", "Montréal", "Calgary 🇨🇦"] },
    Home { code: "NL", weight: 20, language: Language::Dutch, places: ["Amsterdam", "Utrecht, Nederland", "Rotterdam", "Eindhoven 🇳🇱"] },
    Home { code: "PT", weight: 10, language: Language::Portuguese, places: ["Lisboa", "Lisboa, Portugal", "Portugal", "Lisbon 🇵🇹"] },
    Home { code: "AT", weight: 10, language: Language::German, places: ["Wien", "Graz, Österreich", "Salzburg", "Linz 🇦🇹"] },
    Home { code: "CH", weight: 10, language: Language::German, places: ["Zürich", "Bern, Schweiz", "Basel", "Luzern 🇨🇭"] },
];

/// The networks with their weights in a thousand.
pub const NETWORKS: [(&str, u16); 6] =
    [("instagram", 450), ("tiktok", 260), ("youtube", 150), ("x", 60), ("twitch", 40), ("pinterest", 40)];

/// Spanish first names, which the library that makes names lacks.
#[rustfmt::skip]
pub const SPANISH_FIRST: [&str; 20] = [
    "Lucía", "Sofía", "Martina", "María", "Valeria", "Paula", "Ximena", "Camila", "Renata", "Elena", "Mateo", "Hugo",
    "Santiago", "Diego", "Emiliano", "Álvaro", "Javier", "Andrés", "Iker", "Sebastián",
];

/// Spanish last names.
#[rustfmt::skip]
pub const SPANISH_LAST: [&str; 20] = [
    "García", "Hernández", "López", "Martínez", "González", "Pérez", "Rodríguez", "Sánchez", "Ramírez", "Flores",
    "Torres", "Rivera", "Gómez", "Díaz", "Reyes", "Morales", "Cruz", "Ortiz", "Navarro", "Ruiz",
];
